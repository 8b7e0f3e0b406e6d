"""Two adapters on one row: exactly their sum, under a name that says both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio
import torch
from tiny_adapter import tiny_tensors, write_tiny_adapter
from tiny_model import build_tiny_model

from agents.generation.composition import Composition
from models.engine.options import TorchEngineOptions
from models.engine.protocol import GenerationRequest, SamplingParams
from models.engine.torch_engine import TorchEngine
from models.learning.compose import compose_folders, composed
from models.learning.lora import LoraShape
from models.privacy.noise import Tensors
from schemas.errors import DataInvalid, ModelUnavailable

SHAPE = LoraShape(2, 8.0, ("q_proj", "v_proj"))


def deltas(tensors: Tensors, shape: LoraShape) -> dict[str, torch.Tensor]:
    """What an adapter adds to each module's weight."""
    return {
        name.removesuffix(".lora_A.weight"): shape.scaling
        * (tensors[name.replace("lora_A", "lora_B")].double() @ tensors[name].double())
        for name in tensors
        if "lora_A" in name
    }


def test_the_sum_of_two_adapters_is_exact_also_where_one_changes_less() -> None:
    first = tiny_tensors(1), SHAPE
    fewer = {name: t for name, t in tiny_tensors(2, rank=3).items() if "q_proj" in name}
    second = fewer, LoraShape(3, 3.0, ("q_proj",))
    both = composed(first, second)
    assert both[1] == LoraShape(5, 5.0, ("q_proj", "v_proj"))
    found, one, other = deltas(*both), deltas(*first), deltas(*second)
    for module, delta in found.items():
        expected = one[module] + other.get(module, torch.zeros_like(delta))
        assert torch.allclose(delta, expected, atol=1e-6)


def test_only_adapters_are_composed(tmp_path: Path) -> None:
    write_tiny_adapter(tmp_path / "a", 1)
    with pytest.raises(DataInvalid, match="holds no LoRA adapter"):
        compose_folders(tmp_path / "a", tmp_path / "absent", tmp_path / "cache")


class Served:
    """An engine and a composition over it; `documents` is added."""

    def __init__(self, engine: TorchEngine, folder: Path, threads: ThreadPoolExecutor) -> None:
        self.engine = engine
        self.folder = folder
        self.composition = Composition(engine, folder / "cache", "documents", threads)

    async def bring(self, adapter: str, seed: int | None) -> None:
        """A version named by adapter and seed; None is the base model."""
        version, folder = "base", None
        if seed is not None:
            version, folder = f"{adapter}-{seed}", self.folder / f"{adapter}-{seed}"
            write_tiny_adapter(folder, seed)
        assert await self.composition.bring(adapter, version, folder, lambda: True)

    async def answer(self, adapter: str = "default") -> tuple[str, str]:
        """Version and text."""
        sampling = SamplingParams(max_tokens=12)
        asked = GenerationRequest(
            "r", ({"role": "user", "content": "x"},), sampling, adapter=adapter
        )
        async with aclosing(self.engine.stream(asked)) as stream:
            pieces = [piece async for piece in stream]
        assert len({piece.model_version for piece in pieces}) == 1
        return pieces[0].model_version, "".join(piece.text for piece in pieces)


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    model = build_tiny_model(tmp_path / "model", endless=True)
    options = TorchEngineOptions(tmp_path, str(model), context_tokens_max=256, dtype="float32")
    engine = TorchEngine(options)
    await engine.start()
    with ThreadPoolExecutor(1) as threads:
        yield Served(engine, tmp_path, threads)
    await engine.close()


@pytest.mark.asyncio
async def test_each_change_is_served_at_once_and_each_can_be_taken_back(served: Served) -> None:
    base = await served.answer()
    assert base[0] == "base"
    await served.bring("documents", 1)
    alone = await served.answer()
    assert alone[0] == "documents-1"
    await served.bring("default", 2)
    both = await served.answer()
    assert both[0] == "default-2+documents-1"
    # An adapter that comes later has it too.
    await served.bring("tone", 3)
    assert (await served.answer("tone"))[0] == "tone-3+documents-1"
    await served.bring("documents", 4)
    assert (await served.answer())[0] == "default-2+documents-4"
    assert (await served.answer("tone"))[0] == "tone-3+documents-4"
    await served.bring("documents", 1)
    assert await served.answer() == both
    await served.bring("default", None)
    assert await served.answer() == alone
    await served.bring("documents", None)
    assert await served.answer() == base
    assert (await served.answer("tone"))[0] == "tone-3"
    assert len({text for _, text in (base, alone, both)}) == 3


@pytest.mark.asyncio
async def test_two_that_change_together_do_not_miss_each_other(served: Served) -> None:
    await asyncio.gather(served.bring("default", 1), served.bring("documents", 2))
    assert (await served.answer())[0] == "default-1+documents-2"
    await asyncio.gather(served.bring("documents", 3), served.bring("default", 4))
    assert (await served.answer())[0] == "default-4+documents-3"


@pytest.mark.asyncio
async def test_what_does_not_fit_together_leaves_what_was_there(served: Served) -> None:
    await served.bring("default", 1)
    write_tiny_adapter(served.folder / "wide", 2, rank=64)
    with pytest.raises(ModelUnavailable, match="rank 66"):
        await served.composition.bring("documents", "wide", served.folder / "wide", lambda: True)
    assert (await served.answer())[0] == "default-1"
    long = "v" * 195
    with pytest.raises(ModelUnavailable, match="characters"):
        await served.composition.bring("documents", long, served.folder / "wide", lambda: True)
    await served.bring("documents", 3)
    assert (await served.answer())[0] == "default-1+documents-3"
