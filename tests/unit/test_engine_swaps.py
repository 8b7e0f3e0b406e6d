"""200 swaps while requests come and go: none is dropped, and none has two versions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from tiny_adapter import write_tiny_adapter
from tiny_model import build_tiny_model

from models.engine.options import TorchEngineOptions
from models.engine.protocol import GenerationRequest, SamplingParams
from models.engine.torch_engine import TorchEngine
from schemas.errors import ModelBusy

SWAPS = 200
ASKING = 12
# Versions are new each time; their weights come from these many adapters.
ADAPTERS = 5
QUESTIONS = ["hello", "the river " * 20, "🌊"]

Answer = tuple[str, str, str]  # question, version, text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build_tiny_model(tmp_path_factory.mktemp("tiny"))
    for seed in range(ADAPTERS):
        write_tiny_adapter(folder / f"adapter-{seed}", seed)
    return folder


@asynccontextmanager
async def running(folder: Path, lanes: int = 1) -> AsyncIterator[TorchEngine]:
    """Fewer slots than askers, so that swaps also find requests that wait."""
    options = TorchEngineOptions(
        folder.parent,
        str(folder),
        slots=8,
        context_tokens_max=512,
        adapters_max=4,
        dtype="float32",
        lanes=lanes,
    )
    engine = TorchEngine(options)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def adapter_of(version: str) -> int:
    return int(version.removeprefix("v")) % ADAPTERS


async def ask(engine: TorchEngine, question: str, version: str | None = None) -> Answer:
    asked = GenerationRequest(
        "r",
        ({"role": "user", "content": question},),
        SamplingParams(max_tokens=24),
        model_version=version,
    )
    async with aclosing(engine.stream(asked)) as stream:
        pieces = [piece async for piece in stream]
    assert pieces[-1].finish_reason in ("stop", "length")
    (version,) = {piece.model_version for piece in pieces}
    return question, version, "".join(piece.text for piece in pieces)


async def swap(engine: TorchEngine, folder: Path, number: int) -> None:
    while True:
        try:
            await engine.load_adapter(
                "default", f"v{number}", folder / f"adapter-{number % ADAPTERS}"
            )
            return
        except ModelBusy:
            # Four slots, and old versions end with their last answers.
            await asyncio.sleep(0.005)


async def under_load(folder: Path, lanes: int) -> list[Answer]:
    answers: list[Answer] = []
    swapping = True

    async def go_on_asking(number: int) -> None:
        while swapping:
            answers.append(await ask(engine, QUESTIONS[number % len(QUESTIONS)]))

    async with running(folder, lanes) as engine:
        await swap(engine, folder, 0)
        asking = [asyncio.create_task(go_on_asking(number)) for number in range(ASKING)]
        for number in range(1, SWAPS + 1):
            await swap(engine, folder, number)
            while len(answers) < 2 * number:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        swapping = False
        await asyncio.gather(*asking)
        ended = engine.metrics.get_sample_value(
            "headwater:request_success_total", {"finished_reason": "error"}
        )
        assert not ended
        assert engine.metrics.get_sample_value("headwater:lora_loaded") == 1
    return answers


async def alone(folder: Path) -> dict[tuple[str, int], str]:
    """What each adapter answers when it is the only one, and nobody else asks."""
    found = {}
    for number in range(ADAPTERS):
        async with running(folder) as engine:
            await swap(engine, folder, number)
            for question in QUESTIONS:
                found[question, number] = (await ask(engine, question))[2]
    return found


@pytest.mark.asyncio
@pytest.mark.parametrize("lanes", [1, 2])
async def test_200_swaps_under_load_drop_no_request_and_mix_no_versions(
    folder: Path, lanes: int
) -> None:
    answers = await under_load(folder, lanes)
    expected = await alone(folder)
    assert len(set(expected.values())) == len(expected)
    for question, version, text in answers:
        assert text == expected[question, adapter_of(version)]
    # Requests began between the swaps, not in one of the pauses.
    assert len({version for _, version, _ in answers}) > SWAPS / 3
