"""What a server is sent, and what is made of what it says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from models.engine.protocol import SamplingParams
from models.engine.remote.chunks import ChatChunk, Choice, ChosenToken, Delta, Logprobs, Token
from models.engine.remote.faults import Backoff, ServerFault, fault_of_status, server_message
from models.engine.remote.tally import Tally
from models.engine.remote.wire import DIALECTS, chat_body
from schemas.errors import EventInvalid

MESSAGES = ({"role": "user", "content": "How deep is the sea?"},)


def body(dialect: str, **options: Any) -> dict[str, Any]:
    return chat_body(DIALECTS[dialect], MESSAGES, SamplingParams(**options))


def test_options_that_are_off_are_sent_since_servers_have_other_defaults() -> None:
    assert (
        body("vllm").items() >= {"temperature": 0.0, "top_p": 1.0, "top_k": -1, "min_p": 0}.items()
    )
    assert body("llama-cpp-python").items() >= {"top_k": 0, "min_p": 0, "repeat_penalty": 1}.items()


def test_a_seed_fits_what_the_server_takes() -> None:
    assert body("vllm", seed=2**63 - 1)["seed"] == 2**63 - 1
    assert body("llama-cpp-python", seed=2**63 - 1)["seed"] < 2**32 - 1


@pytest.mark.parametrize("option", ["top_k", "min_p", "repetition_penalty"])
def test_an_option_that_the_server_does_not_know_is_refused(option: str) -> None:
    assert option not in body("openai")
    with pytest.raises(EventInvalid, match=rf"\(openai\) does not know {option}"):
        body("openai", **{option: 0.5 if option == "min_p" else 2})


def test_penalties_go_by_the_names_that_each_server_knows() -> None:
    for dialect in DIALECTS:
        sent = body(dialect, frequency_penalty=0.5, presence_penalty=-0.5)
        assert (sent["frequency_penalty"], sent["presence_penalty"]) == (0.5, -0.5)
    assert body("vllm", repetition_penalty=1.3)["repetition_penalty"] == 1.3
    assert body("llama-cpp-python", repetition_penalty=1.3)["repeat_penalty"] == 1.3


def test_log_probabilities_are_asked_for_with_their_number_or_not_at_all() -> None:
    for dialect in DIALECTS:
        assert not {"logprobs", "top_logprobs"} & set(body(dialect))
        sent = body(dialect, logprobs=True)
        assert (sent["logprobs"], sent["top_logprobs"]) == (True, 0)


def test_a_json_schema_is_sent_as_it_is_followed_here() -> None:
    schema = {"type": "object", "properties": {"depth": {"type": "integer"}}}
    followed = {**schema, "additionalProperties": False}
    asked = {"json_schema": json.dumps(schema)}
    for dialect in ("vllm", "openai"):
        sent = body(dialect, **asked)["response_format"]
        assert sent["type"] == "json_schema"
        assert sent["json_schema"]["schema"] == followed
        assert sent["json_schema"]["strict"]
    llama = body("llama-cpp-python", **asked)["response_format"]
    assert llama == {"type": "json_object", "schema": followed}
    with pytest.raises(EventInvalid, match="uniqueItems"):
        body("vllm", json_schema='{"type": "array", "uniqueItems": true}')


def test_any_json_is_asked_for_without_a_schema() -> None:
    for dialect in DIALECTS:
        assert body(dialect, json_object=True)["response_format"] == {"type": "json_object"}
        assert "response_format" not in body(dialect)


def test_an_option_that_nobody_has_mapped_is_refused_once_it_is_used() -> None:
    @dataclass(frozen=True, slots=True)
    class Later(SamplingParams):
        typical_p: float = 1.0

    assert "typical_p" not in chat_body(DIALECTS["vllm"], MESSAGES, Later())
    with pytest.raises(EventInvalid, match="typical_p"):
        chat_body(DIALECTS["vllm"], MESSAGES, Later(typical_p=0.5))


def test_a_reason_that_is_no_answer_is_an_error() -> None:
    tally = Tally(5)
    tally.add(ChatChunk([Choice(finish_reason="content_filter")]))
    assert tally.last().finish_reason == "error"
    assert "content_filter" in tally.last().error


def chunk(text: str, *tokens: ChosenToken, **more: Any) -> ChatChunk:
    return ChatChunk([Choice(Delta(text), logprobs=Logprobs(list(tokens)), **more)])


def test_tokens_without_text_are_told_with_the_text_that_they_become() -> None:
    tally = Tally(5)
    wave = "🌊".encode()
    assert tally.add(chunk("", ChosenToken("\\xf0\\x9f", -1.0, list(wave[:2])))) is None
    piece = tally.add(chunk("🌊", ChosenToken("\\x8c\\x8a", -2.0, list(wave[2:]))))
    assert piece is not None
    assert [(told.token, told.raw) for told in piece.logprobs] == [
        ("\ufffd", wave[:2]),
        ("\ufffd\ufffd", wave[2:]),
    ]
    assert piece.completion_tokens == 2


def test_the_likeliest_are_sorted_and_no_more_than_asked_for() -> None:
    tops = [Token("chosen", -3.0), Token("best", -0.1), Token("never", -1e9)]
    tally = Tally(5, top_logprobs=2)
    piece = tally.add(chunk("chosen", ChosenToken("chosen", -3.0, None, tops)))
    assert piece is not None
    (told,) = piece.logprobs
    assert (told.token, told.raw) == ("chosen", b"chosen")
    assert [top.token for top in told.top] == ["best", "chosen"]
    floor = Tally(5, top_logprobs=3).add(chunk("x", ChosenToken("x", -1e9, None, tops)))
    assert floor is not None
    assert floor.logprobs[0].logprob == floor.logprobs[0].top[2].logprob == -9999.0


@pytest.mark.parametrize(
    ("reason", "stop_reason", "told"),
    [
        ("stop", None, 1),
        ("stop", 2, 1),
        ("stop", "river", 2),
        ("stop", msgspec.UNSET, 2),
        ("length", None, 2),
    ],
)
def test_an_end_token_is_not_told_of(reason: str, stop_reason: str | int | None, told: int) -> None:
    tally = Tally(5)
    tokens = [ChosenToken("sea", -1.0), ChosenToken("<|im_end|>", -0.1)]
    piece = tally.add(chunk("sea", *tokens, finish_reason=reason, stop_reason=stop_reason))
    assert piece is not None
    assert len(piece.logprobs) == told


@pytest.mark.parametrize(
    "said",
    [
        b'{"error": {"message": "too long", "code": 400}}',
        b'{"error": "too long"}',
        b'{"object": "error", "message": "too long"}',
        b'{"detail": "too long"}',
        b"<p> too\n long </p>",
    ],
)
def test_every_shape_of_an_error_gives_its_message(said: bytes) -> None:
    assert "too long" in server_message(said)


def test_a_status_says_whose_fault_it_is() -> None:
    assert isinstance(fault_of_status(422, ""), EventInvalid)
    for status, transient, down in [
        (401, False, True),
        (404, False, True),
        (429, True, True),
        (500, True, False),
        (503, True, True),
    ]:
        fault = fault_of_status(status, "")
        assert isinstance(fault, ServerFault)
        assert (fault.transient, fault.down) == (transient, down), status


def test_pauses_grow_end_in_time_and_heed_the_server() -> None:
    backoff = Backoff(60)
    first, *_, later = [backoff.next_s() or 0.0 for _ in range(5)]
    assert 0 < first < later
    assert backoff.next_s(at_least_s=20) == 20
    assert backoff.next_s(at_least_s=61) is None
