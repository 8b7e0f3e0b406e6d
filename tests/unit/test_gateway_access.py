"""Keys, rates, bodies and errors of the gateway, without a broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from agents.gateway.access import keys as keys_module
from agents.gateway.access.bodies import BodyLimit, KnownHost
from agents.gateway.access.keys import Keys, add_key, read_keys, remove_key
from agents.gateway.access.limits import RateLimits
from agents.gateway.app import make_app
from agents.gateway.errors import ApiError, as_api_error, handle_errors
from agents.gateway.openai.prompts import messages_of, sampling_of
from agents.gateway.openai.requests import ChatRequest
from agents.gateway.settings import GatewaySettings
from agents.gateway.state import Gateway
from agents.settings import EmbedderSettings
from schemas.errors import (
    AnswerTimeout,
    BrokerUnreachable,
    EventInvalid,
    GenerationFailed,
    SettingsInvalid,
)
from schemas.events import Message
from streams.settings import KafkaSettings


def test_a_key_is_found_by_its_secret_which_is_kept_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "gateway" / "keys.json"
    secret = add_key(path, "app", ["documents"], tokens_per_day=5)
    assert secret not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    found = Keys(path).find(secret)
    assert found is not None
    assert (found.name, found.scopes, found.tokens_per_day) == ("app", ["documents"], 5)
    assert Keys(path).find(secret + "x") is None


def test_names_of_keys_are_short_and_their_own(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add_key(path, "app", [])
    for name in ("app", "", "App", "a/b", "-a", "a" * 41):
        with pytest.raises(SettingsInvalid):
            add_key(path, name, [])
    with pytest.raises(SettingsInvalid, match="no key 'b'"):
        remove_key(path, "b")
    assert [key.name for key in read_keys(path)] == ["app"]


def test_a_running_gateway_follows_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "_LOOK_AGAIN_S", 0.0)
    path = tmp_path / "keys.json"
    keys = Keys(path)
    assert not keys.required
    secret = add_key(path, "app", [])
    assert keys.find(secret) is not None
    path.write_text("broken")
    assert keys.find(secret) is not None
    remove_key_by_hand(path)
    assert keys.find(secret) is None
    # Whoever removes the file does not open the door.
    assert keys.required
    path.write_text("broken")
    with pytest.raises(SettingsInvalid, match="holds no API keys"):
        Keys(path)


def remove_key_by_hand(path: Path) -> None:
    path.unlink()


def test_a_bucket_fills_evenly() -> None:
    now_s = 0.0
    limits = RateLimits(lambda: now_s)
    told = [limits.take("app", 60)["x-ratelimit-remaining-requests"] for _ in range(60)]
    assert told == [str(left) for left in range(59, -1, -1)]
    with pytest.raises(ApiError) as caught:
        limits.take("app", 60)
    assert caught.value.status == 429
    assert (caught.value.headers or {})["Retry-After"] == "1"
    limits.take("other", 60)
    now_s = 1.01
    limits.take("app", 60)
    with pytest.raises(ApiError):
        limits.take("app", 60)


def test_each_prompt_of_a_request_counts_and_a_refused_one_costs_nothing() -> None:
    now_s = 0.0
    limits = RateLimits(lambda: now_s)
    for left in ("40", "20", "0"):
        limits.take("app", 60)
        told = limits.take("app", 60, 20, counted=1)
        assert told["x-ratelimit-remaining-requests"] == left
    now_s = 5.0
    limits.take("app", 60)
    with pytest.raises(ApiError) as caught:
        limits.take("app", 60, 20, counted=1)
    assert (caught.value.headers or {})["Retry-After"] == "15"
    assert (caught.value.headers or {})["x-ratelimit-remaining-requests"] == "5"


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (EventInvalid("No."), 400, "invalid_request_error", "invalid_request"),
        (GenerationFailed("No."), 400, "invalid_request_error", "generation_failed"),
        (AnswerTimeout("No."), 503, "server_error", "timeout"),
        (BrokerUnreachable("No."), 503, "server_error", "unavailable"),
        (RuntimeError("secret"), 500, "server_error", "internal"),
    ],
)
def test_errors_of_ours_have_a_status(error: Exception, status: int, kind: str, code: str) -> None:
    told = as_api_error(error)
    body = told.body()["error"]
    assert (told.status, body["type"], body["code"]) == (status, kind, code)
    assert "secret" not in body["message"]


def app_with(folder: Path, **settings: Any) -> TestClient:
    """A gateway with these settings and without a broker."""
    files = {"keys_file": folder / "keys.json", "stream_key_file": folder / "stream.key"}
    gateway = Gateway(KafkaSettings(), GatewaySettings(**files, **settings), EmbedderSettings())
    return TestClient(make_app(gateway), base_url="http://127.0.0.1")


@pytest.mark.parametrize("limit", ["requests_open_max", "requests_per_minute"])
def test_more_prompts_than_ever_fit_are_refused_by_name(tmp_path: Path, limit: str) -> None:
    http = app_with(tmp_path, **{limit: 2})
    asked = {"model": "headwater", "prompt": ["a", "b", "c"]}
    refused = http.post("/v1/completions", json=asked)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "prompt")
    assert "2 at most" in refused.json()["error"]["message"]


def test_pages_of_named_origins_may_call_it_and_no_others(tmp_path: Path) -> None:
    http = app_with(tmp_path, cors_origins="https://shop.example, https://help.example")
    wanted = {"Access-Control-Request-Method": "POST"}

    def allowed(origin: str) -> str | None:
        asked = http.options("/v1/chat/completions", headers={"Origin": origin, **wanted})
        return asked.headers.get("access-control-allow-origin")

    assert allowed("https://help.example") == "https://help.example"
    assert allowed("https://other.example") is None
    live = http.get("/health/live", headers={"Origin": "https://shop.example"})
    assert live.headers["access-control-allow-origin"] == "https://shop.example"


@pytest.fixture
def small_app() -> TestClient:
    """An app that counts what it reads, behind the gateway's first doors."""
    app = FastAPI()

    @app.post("/")
    async def count(body: dict[str, Any]) -> int:
        return len(body["text"])

    @app.get("/fails")
    async def fail(request: Request) -> None:
        raise RuntimeError("secret")

    handle_errors(app)
    app.add_middleware(BodyLimit, bytes_max=1_000)
    app.add_middleware(KnownHost, keys_required=lambda: False)
    return TestClient(app, "http://localhost:8080", raise_server_exceptions=False)


def test_a_large_body_is_refused_also_when_it_was_not_announced(small_app: TestClient) -> None:
    def parts() -> Any:
        for _ in range(30):
            yield b"x" * 100

    assert small_app.post("/", json={"text": "x" * 900}).json() == 900
    for content in (b"x" * 3_000, parts()):
        answer = small_app.post("/", content=content, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_without_keys_other_names_of_this_host_are_refused(small_app: TestClient) -> None:
    def status(host: str) -> int:
        return small_app.post("/", json={"text": ""}, headers={"Host": host}).status_code

    assert [status(host) for host in ("localhost", "127.0.0.1:9", "[::1]:9", "[::1]")] == [200] * 4
    assert [status(host) for host in ("evil.example", "localhost.evil.example:80", "")] == [403] * 3


def test_what_fails_inside_tells_nothing_of_it(small_app: TestClient) -> None:
    answer = small_app.get("/fails")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert small_app.get("/nowhere").json()["error"]["type"] == "not_found_error"


def test_lengths_are_cut_to_what_a_prompt_may_have() -> None:
    def tokens(**fields: Any) -> int:
        turn = {"role": "user", "content": "a"}
        body = ChatRequest.model_validate({"model": "m", "messages": [turn], **fields})
        return sampling_of(body, 256).max_tokens

    assert tokens() == 256
    assert tokens(max_tokens=8_192, n=8) == 1_024
    assert tokens(max_tokens=8_192, n=2, logprobs=True, top_logprobs=20) == 390
    assert tokens(max_tokens=5, max_completion_tokens=7) == 7


def test_turns_become_messages() -> None:
    text = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    turns = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": text}]
    body = ChatRequest.model_validate_json(json.dumps({"model": "m", "messages": turns}))
    assert messages_of(body) == [Message("system", "Be brief."), Message("user", "Hello")]


IMAGE = "messages.0.content.0.type"


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"modalities": ["audio"]}, "modalities.0"),
        ({"messages": [{"role": "tool", "content": "4"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, IMAGE),
        ({"stop": 5}, "stop"),
    ],
)
def test_what_cannot_be_served_is_refused_by_its_name(asked: dict[str, Any], param: str) -> None:
    app = FastAPI()
    handle_errors(app)

    @app.post("/chat")
    def chat(body: ChatRequest) -> str:
        return body.model

    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "tools": []}
    client = TestClient(app)
    assert client.post("/chat", json=body).status_code == 200
    refused = client.post("/chat", json=body | asked)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
