"""Guesses at the next tokens, and that they never change an answer."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tiny_model import build_tiny_model
from torch import Tensor

from models.engine import batch_model
from models.engine.arena import Arena
from models.engine.llama import Shape
from models.engine.options import TorchEngineOptions
from models.engine.prompt_lookup import PromptLookup
from models.engine.protocol import GenerationRequest, SamplingParams
from models.engine.torch_engine import TorchEngine
from schemas.errors import SettingsInvalid


def test_what_followed_the_last_two_tokens_before_is_guessed() -> None:
    assert PromptLookup().guess([1, 2, 3, 4, 5, 1, 2], 2) == [3, 4]


def test_the_latest_place_counts() -> None:
    assert PromptLookup().guess([1, 2, 3, 1, 2, 4, 1, 2], 1) == [4]


def test_nothing_is_guessed_from_new_words() -> None:
    lookup = PromptLookup()
    assert not lookup.guess([1, 2, 3, 4], 3)
    assert not lookup.guess([1], 3)


def test_the_answer_itself_is_looked_up_while_it_grows() -> None:
    lookup, tokens = PromptLookup(), [1, 2]
    for token in (3, 4, 1, 2):
        assert not lookup.guess(tokens, 3)
        tokens.append(token)
    assert lookup.guess(tokens, 3) == [3, 4, 1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


# A model of random weights never repeats itself: a negative penalty makes it, and so does a schema.
AGAIN = {"frequency_penalty": -2.0}
WISHES: list[dict[str, Any]] = [
    {"max_tokens": 80},
    {"max_tokens": 300, **AGAIN},  # Over the end of its first row.
    {"max_tokens": 80, "temperature": 1.0, "seed": 7, **AGAIN},
    {"max_tokens": 80, "temperature": 1.0, "seed": 8, "top_p": 0.9, **AGAIN},
    {"max_tokens": 80, "logprobs": True, "top_logprobs": 2, **AGAIN},
    {
        "max_tokens": 200,
        "json_schema": '{"type": "array", "items": {"const": "sea side"}, "minItems": 8}',
    },
]


@dataclass
class Told:
    """An answer: text, tokens and reason; log probabilities, which rounding changes a little."""

    said: tuple[object, ...]
    logprobs: list[float]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Told) and (
            self.said == other.said and self.logprobs == pytest.approx(other.logprobs, abs=1e-3)
        )


async def answers(
    folder: Path, open_max: int = 1, **options: Any
) -> tuple[list[Told], CollectorRegistry]:
    """What the engine says to each wish, and its metrics."""
    engine = TorchEngine(TorchEngineOptions(folder, str(folder), dtype="float32", **options))
    await engine.start()
    room = asyncio.Semaphore(open_max)

    async def answer(wishes: dict[str, Any]) -> Told:
        async with room:
            return await told(engine, SamplingParams(**wishes))

    try:
        return await asyncio.gather(*(answer(wishes) for wishes in WISHES)), engine.metrics
    finally:
        await engine.close()


def guesses_right(metrics: CollectorRegistry) -> float:
    return metrics.get_sample_value("headwater:spec_decode_num_accepted_tokens_total") or 0.0


async def told(engine: TorchEngine, sampling: SamplingParams) -> Told:
    request = GenerationRequest(
        "r", ({"role": "user", "content": "down to the sea " * 12},), sampling
    )
    async with aclosing(engine.stream(request)) as stream:
        pieces = [piece async for piece in stream]
    last = pieces[-1]
    return Told(
        ("".join(piece.text for piece in pieces), last.completion_tokens, last.finish_reason),
        [seen.logprob for piece in pieces for seen in piece.logprobs],
    )


@pytest.fixture(scope="module")
def plain(folder: Path) -> list[Told]:
    found, metrics = asyncio.run(answers(folder, guesses_max=0))
    assert guesses_right(metrics) == 0
    return found


@pytest.mark.parametrize("open_max", [1, 2, len(WISHES)])
def test_an_answer_is_the_same_with_guesses_whatever_it_is_asked_with(
    folder: Path, plain: list[Told], open_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = 0
    made = batch_model.GuessGroup

    def group(
        shape: Shape, arena: Arena, first: int, counts: Sequence[int], like: Tensor
    ) -> batch_model.GuessGroup:
        nonlocal together
        together = max(together, sum(count > 1 for count in counts))
        return made(shape, arena, first, counts, like)

    monkeypatch.setattr(batch_model, "GuessGroup", group)
    guessed, metrics = asyncio.run(answers(folder, open_max, guesses_max=3))
    assert guessed == plain
    assert guesses_right(metrics) > 100
    assert min(open_max, 2) <= together <= open_max


def test_guesses_and_preemptions_change_no_answer_together(folder: Path, plain: list[Told]) -> None:
    token_bytes = 2 * 2 * 2 * 16 * 4  # layers, keys and values, key heads, head size, float32
    short = {"context_tokens_max": 512, "kv_bytes_max": 1_100 * token_bytes}
    guessed, metrics = asyncio.run(answers(folder, len(WISHES), guesses_max=3, **short))
    assert guessed == plain
    assert guesses_right(metrics) > 100
    assert metrics.get_sample_value("headwater:num_preemptions_total")


def test_less_than_no_guesses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="guesses_max 0 or more"):
        TorchEngineOptions(tmp_path, guesses_max=-1)
