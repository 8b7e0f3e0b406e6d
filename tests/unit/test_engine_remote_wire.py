"""What a server is sent, and what is made of what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from models.engine.protocol import SamplingParams
from models.engine.remote.chunks import ChatChunk, Choice, Tally
from models.engine.remote.faults import Backoff, ServerFault, fault_of_status, server_message
from models.engine.remote.wire import DIALECTS, chat_body
from schemas.errors import EventInvalid

MESSAGES = ({"role": "user", "content": "How deep is the sea?"},)


def body(dialect: str, **options: Any) -> dict[str, Any]:
    return chat_body(DIALECTS[dialect], "m", MESSAGES, SamplingParams(**options))


def test_options_that_are_off_are_sent_since_servers_have_other_defaults() -> None:
    assert (
        body("vllm").items() >= {"temperature": 0.0, "top_p": 1.0, "top_k": -1, "min_p": 0}.items()
    )
    assert body("llama-cpp-python").items() >= {"top_k": 0, "min_p": 0, "repeat_penalty": 1}.items()


def test_a_seed_fits_what_the_server_takes() -> None:
    assert body("vllm", seed=2**63 - 1)["seed"] == 2**63 - 1
    assert body("llama-cpp-python", seed=2**63 - 1)["seed"] < 2**32 - 1


def test_an_option_that_the_server_does_not_know_is_refused() -> None:
    assert "top_k" not in body("openai")
    with pytest.raises(EventInvalid, match="top_k"):
        body("openai", top_k=5)


def test_an_option_that_nobody_has_mapped_is_refused_once_it_is_used() -> None:
    @dataclass(frozen=True, slots=True)
    class Later(SamplingParams):
        typical_p: float = 1.0

    assert "typical_p" not in chat_body(DIALECTS["vllm"], "m", MESSAGES, Later())
    with pytest.raises(EventInvalid, match="typical_p"):
        chat_body(DIALECTS["vllm"], "m", MESSAGES, Later(typical_p=0.5))


def test_a_reason_that_is_no_answer_is_an_error() -> None:
    tally = Tally(5)
    tally.add(ChatChunk([Choice(finish_reason="content_filter")]))
    assert tally.last().finish_reason == "error"
    assert "content_filter" in tally.last().error


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
