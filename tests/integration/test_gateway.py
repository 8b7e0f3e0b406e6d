"""The unchanged OpenAI client, and plain HTTP, against a real gateway, broker and tiny model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from gateways import Gateways
from openai import OpenAI
from workers import Workers, paused

from agents.gateway.openai.shapes import answers_of
from schemas.headers import header, trace_id
from schemas.topics import CONTEXTS, FEEDBACK, GENERATIONS, PROMPTS, Topic
from streams.follower import Follower
from streams.settings import KafkaSettings
from streams.subscription import Subscription
from streams.sync import SyncClient

pytestmark = pytest.mark.integration

HELLO: Any = [{"role": "user", "content": "Hello?"}]
# Eight answers that cannot end before somebody has left: none may stop before its 500th item.
_ITEMS = {"type": "array", "items": {"type": "boolean"}, "minItems": 500}
LONG: Any = {
    "max_tokens": 900,
    "temperature": 1.0,
    "n": 8,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "long", "schema": _ITEMS},
    },
}
WAIT_S_MAX = 60


@pytest.fixture
def client(gateway: Gateways) -> Iterator[OpenAI]:
    with OpenAI(
        base_url=f"{gateway.url()}/v1",
        api_key=gateway.keys["app"],
        timeout=WAIT_S_MAX,
        max_retries=0,
    ) as client:
        yield client


@pytest.fixture
def http(gateway: Gateways) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {gateway.keys['app']}"}
    with httpx.Client(base_url=gateway.url(), headers=headers, timeout=WAIT_S_MAX) as http:
        yield http


def of_prompt(kafka: KafkaSettings, topic: Topic, prompt_id: str) -> Any:
    """The one event of a prompt, once it is there."""
    return first_of(kafka, topic, prompt_id=prompt_id)


def first_of(kafka: KafkaSettings, topic: Topic, **fields: str) -> Any:
    """The first event that has these fields, once it is there."""
    with SyncClient(kafka) as client:
        for event in client.subscribe(topic.name, since="earliest"):
            if all(getattr(event, name) == value for name, value in fields.items()):
                return event
    raise AssertionError("a subscription does not end")


def test_a_chat_is_answered_whole_and_as_a_stream_alike(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="headwater", messages=HELLO, max_tokens=12)
    stream = client.chat.completions.create(
        model="headwater",
        messages=HELLO,
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert whole.usage is not None and whole.usage.completion_tokens == 12
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 12


def test_several_seeded_choices_come_in_both_ways(client: OpenAI) -> None:
    asked: Any = {
        "model": "headwater",
        "messages": HELLO,
        "max_completion_tokens": 10,
        "temperature": 1.0,
        "seed": 7,
        "n": 3,
    }
    whole = client.chat.completions.create(**asked)
    texts = ["", "", ""]
    for chunk in client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]
    assert len(set(texts)) == 3
    assert whole.usage is not None and whole.usage.completion_tokens <= 30


def test_a_stop_text_ends_an_answer_before_it(client: OpenAI) -> None:
    asked: Any = {"model": "headwater", "prompt": "Hello?", "max_tokens": 12}
    whole = client.completions.create(**asked).choices[0].text
    stop = whole[5:7]
    stopped = client.completions.create(**asked, stop=[stop]).choices[0]
    assert stopped.text == whole[: whole.find(stop)]
    assert stopped.finish_reason == "stop"


def test_each_of_several_prompts_has_its_own_choices(client: OpenAI) -> None:
    prompts = ["Hello?", "How deep is the lake?"]
    asked: Any = {"model": "headwater", "max_tokens": 8, "n": 2, "temperature": 1.0, "seed": 3}
    alone = [client.completions.create(**asked, prompt=prompt) for prompt in prompts]
    whole = client.completions.create(**asked, prompt=prompts)
    texts = [choice.text for one in alone for choice in one.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in whole.choices] == texts
    assert whole.usage is not None
    used = [one.usage.total_tokens for one in alone if one.usage is not None]
    assert whole.usage.total_tokens == sum(used)
    streamed = [""] * 4
    options: Any = {"include_usage": True}
    chunks = client.completions.create(**asked, prompt=prompts, stream=True, stream_options=options)
    last = None
    for last in chunks:
        assert last.id.startswith("cmpl")
        for choice in last.choices:
            streamed[choice.index] += choice.text
    assert streamed == texts
    assert last is not None and last.usage == whole.usage


def test_a_broken_stream_of_several_prompts_goes_on_too(http: httpx.Client) -> None:
    asked = {
        "model": "headwater",
        "prompt": ["Hello?", "Who?"],
        "max_tokens": 60,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    whole = list(events_of(http, asked, path="completions"))
    middle = [event_id for event_id, _ in whole].index(whole[len(whole) // 2][0])
    rest = list(events_of(http, asked, whole[middle][0], "completions"))
    for index in (0, 1):
        expected = text_of([data for _, data in whole], index)
        before = text_of([data for _, data in whole[: middle + 1]], index)
        assert before + text_of([data for _, data in rest], index) == expected
    assert rest[-2:] and rest[-1][1] == "[DONE]"
    assert json.loads(rest[-2][1])["usage"] == json.loads(whole[-2][1])["usage"]
    assert [data for _, data in events_of(http, asked, whole[-2][0], "completions")] == ["[DONE]"]


def test_logprobs_are_those_of_the_tokens(client: OpenAI) -> None:
    asked: Any = {"model": "headwater", "messages": HELLO, "max_tokens": 6, "logprobs": True}
    choice = client.chat.completions.create(**asked, top_logprobs=2).choices[0]
    assert choice.logprobs is not None and choice.logprobs.content is not None
    assert len(choice.logprobs.content) == 6
    assert all(len(told.top_logprobs) == 2 for told in choice.logprobs.content)
    spelt = b"".join(bytes(told.bytes or []) for told in choice.logprobs.content)
    assert spelt.decode("utf-8", "replace").startswith((choice.message.content or "")[:3])
    streamed = [
        told
        for chunk in client.chat.completions.create(**asked, top_logprobs=2, stream=True)
        for piece in chunk.choices
        if piece.logprobs is not None
        for told in piece.logprobs.content or []
    ]
    assert streamed == choice.logprobs.content


def test_an_answer_follows_a_schema(client: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"deep": {"type": "boolean"}},
        "required": ["deep"],
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "depth", "schema": schema}}
    answer = client.chat.completions.create(
        model="headwater", messages=HELLO, max_tokens=40, response_format=form
    )
    assert isinstance(json.loads(answer.choices[0].message.content or "")["deep"], bool)


def test_models_and_embeddings(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["headwater", "minilm"]
    assert client.models.retrieve("headwater").id == "headwater"
    found = client.embeddings.create(
        model="minilm", input=["A deep river.", "The stream is deep.", "Tax law."]
    )
    first, near, far = (item.embedding for item in found.data)
    assert len(first) == 384
    assert found.usage.prompt_tokens > 10

    def cosine(one: list[float], other: list[float]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True))

    assert cosine(first, first) == pytest.approx(1.0, abs=1e-3)
    assert cosine(first, near) > cosine(first, far)


def test_documents_come_ground_answers_and_go(http: httpx.Client, client: OpenAI) -> None:
    put = http.put("/v1/documents/lakes/mirror", json={"text": "Lake Mirror is 31 m deep."})
    assert (put.status_code, put.json()["state"]) == (202, "published")
    state: dict[str, Any] = {}
    while state.get("state") != "retrievable":
        state = http.get("/v1/documents/lakes/mirror").json()
    assert state["passages"] == 1
    assert state["passages_ms"] >= state["published_ms"]
    found: list[dict[str, Any]] = []
    while not found:
        answer = client.chat.completions.create(
            model="headwater",
            messages=[{"role": "user", "content": "How deep is lake Mirror?"}],
            max_tokens=2,
            extra_body={"retrieval": {"top_k": 1, "score_floor": 0.5}},
        )
        found = (answer.model_extra or {})["headwater"]["passages"]
    assert found[0]["document_id"] == "lakes/mirror"
    assert http.delete("/v1/documents/lakes/mirror").status_code == 204
    assert http.get("/v1/documents/lakes/mirror").status_code == 404


def test_feedback_reaches_the_topic_under_the_keys_users(
    http: httpx.Client, client: OpenAI, river: KafkaSettings
) -> None:
    answer = client.chat.completions.create(
        model="headwater", messages=HELLO, max_tokens=2, user="ann"
    )
    sent = {"prompt_id": answer.id, "rating": 1.0, "correction": "Hello.", "user": "ann"}
    told = http.post("/v1/feedback", json=sent)
    assert told.status_code == 202
    feedback = of_prompt(river, FEEDBACK, answer.id)
    assert feedback.feedback_id == told.json()["feedback_id"]
    assert feedback.user_id == of_prompt(river, PROMPTS, answer.id).user_id == "app/ann"


def test_the_trace_of_a_caller_goes_on(client: OpenAI, river: KafkaSettings) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    answers = [
        client.chat.completions.create(
            model="headwater",
            messages=HELLO,
            max_tokens=2,
            extra_headers={"traceparent": traceparent},
        )
        for traceparent in (f"00-{trace}-b7ad6b7169203331-01", "nonsense")
    ]
    found = asyncio.run(traces(river))
    assert found[answers[0].id] == trace
    assert found[answers[1].id] not in (trace, None)


async def traces(kafka: KafkaSettings) -> dict[str, str | None]:
    """The trace of each finished record, by prompt."""
    async with Subscription(kafka, GENERATIONS, since="earliest") as subscription:
        return {
            record.key_text or "": trace_id(header(record.headers, "traceparent"))
            async for record in subscription.present()
        }


@pytest.mark.parametrize(
    ("status", "kind", "asked"),
    [
        (400, openai.BadRequestError, {"temperature": 9}),
        (400, openai.BadRequestError, {"messages": []}),
        (400, openai.BadRequestError, {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        (400, openai.BadRequestError, {"messages": [{"role": "user", "content": "a " * 3_000}]}),
        (404, openai.NotFoundError, {"model": "gpt-5"}),
    ],
)
def test_what_is_wrong_is_told_in_openais_way(
    client: OpenAI, status: int, kind: type[openai.APIStatusError], asked: dict[str, Any]
) -> None:
    with pytest.raises(kind) as caught:
        client.chat.completions.create(**({"model": "headwater", "messages": HELLO} | asked))
    assert caught.value.status_code == status
    assert caught.value.body is not None


def test_keys_are_needed_and_limited(gateway: Gateways, http: httpx.Client) -> None:
    def status(key: str | None, path: str = "/v1/models", method: str = "GET") -> int:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        body: Any = None
        if method == "POST":
            body = {"model": "headwater", "messages": HELLO, "max_tokens": 2}
        return httpx.request(
            method, gateway.url() + path, headers=headers, json=body, timeout=WAIT_S_MAX
        ).status_code

    assert status(None) == status("hw-unknown") == 401
    assert status(gateway.keys["other"], "/v1/documents/x", "DELETE") == 403
    slow = gateway.keys["slow"]
    assert [status(slow) for _ in range(3)] == [200, 200, 429]
    poor = gateway.keys["poor"]
    assert status(poor, "/v1/chat/completions", "POST") == 200
    # An answer counts once its record is read, which may be after its last word was.
    assert 429 in (status(poor, "/v1/chat/completions", "POST") for _ in range(20))
    assert [status(None, path) for path in ("/health/live", "/health/ready")] == [200, 200]
    page = http.get("/metrics").text
    assert 'headwater:gateway_requests_total{route="/v1/models",status="429"}' in page
    listed = http.get("/v1/models", headers={"Origin": "https://other.example"})
    assert "access-control-allow-origin" not in listed.headers
    large = http.post("/v1/feedback", content=b"x" * 3_000_000)
    assert (large.status_code, large.json()["error"]["code"]) == (413, "request_too_large")


def test_who_leaves_cancels(client: OpenAI, river: KafkaSettings) -> None:
    stream = client.chat.completions.create(model="headwater", messages=HELLO, stream=True, **LONG)
    prompt_id = next(iter(stream)).id
    stream.close()
    answers = answers_of(of_prompt(river, GENERATIONS, prompt_id))
    assert {reason for _, reason, _ in answers} == {"cancelled"}


def test_who_leaves_without_a_stream_cancels_too(
    client: OpenAI, agents: Workers, river: KafkaSettings
) -> None:
    asked: Any = {"model": "headwater", "messages": HELLO, "user": "bob", "timeout": 0.5}
    with paused(agents.supervisor.pids()["generate"]):
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(**asked, **LONG)
        prompt_id = first_of(river, PROMPTS, user_id="app/bob").prompt_id
        asyncio.run(asyncio.wait_for(cancelled(river, prompt_id), WAIT_S_MAX))
    answers = answers_of(of_prompt(river, GENERATIONS, prompt_id))
    assert {reason for _, reason, _ in answers} == {"cancelled"}


async def cancelled(kafka: KafkaSettings, prompt_id: str) -> None:
    """Returns once the prompt's tombstone is where the engine reads."""
    follower = Follower(kafka, CONTEXTS, "earliest")
    await follower.open()
    try:
        while not any(r.key_text == prompt_id and r.value is None for r in await follower.batch()):
            pass
    finally:
        await follower.close()


def test_a_broken_stream_goes_on_where_it_was(gateway: Gateways, http: httpx.Client) -> None:
    asked = {
        "model": "headwater",
        "messages": HELLO,
        "max_tokens": 120,
        "temperature": 1.0,
        "seed": 11,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    whole = list(events_of(http, asked))
    last = [event_id for event_id, _ in whole if event_id][3]
    broken = [data for event_id, data in whole[: [e for e, _ in whole].index(last) + 1]]
    rest = list(events_of(http, asked, last))
    assert text_of(broken) + text_of([data for _, data in rest]) == text_of([d for _, d in whole])
    assert rest[-1][1] == "[DONE]"
    # After the very end but one, only the end is left.
    assert [d for _, d in events_of(http, asked, whole[-2][0])] == ["[DONE]"]
    for key, body in (("other", asked), ("app", asked | {"seed": 12})):
        headers = {"Authorization": f"Bearer {gateway.keys[key]}", "Last-Event-ID": last}
        refused = httpx.post(f"{gateway.url()}/v1/chat/completions", json=body, headers=headers)
        assert refused.json()["error"]["code"] == "invalid_event_id"


def events_of(
    http: httpx.Client,
    asked: dict[str, Any],
    last_event_id: str | None = None,
    path: str = "chat/completions",
) -> Iterator[tuple[str, str]]:
    """Ids and data of a stream's events."""
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    with http.stream("POST", f"/v1/{path}", json=asked, headers=headers) as response:
        assert response.status_code == 200
        event_id = ""
        for line in response.iter_lines():
            if line.startswith("id: "):
                event_id = line[4:]
            elif line.startswith("data: "):
                yield event_id, line[6:]


def text_of(datas: list[str], index: int = 0) -> str:
    """The text of one of a stream's choices."""
    chunks = [json.loads(data) for data in datas if data != "[DONE]"]
    pieces = [piece for chunk in chunks for piece in chunk["choices"] if piece["index"] == index]
    texts = [piece.get("text") or piece.get("delta", {}).get("content") for piece in pieces]
    return "".join(filter(None, texts))
