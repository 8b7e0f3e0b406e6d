"""Adapters of the local engine: what is refused, what waits, and what stays loaded."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from safetensors.torch import save_file
from tiny_adapter import RANK, tiny_tensors, write_tiny_adapter
from tiny_model import build_tiny_model

from models.engine.options import TorchEngineOptions
from models.engine.protocol import GenerationRequest, SamplingParams
from models.engine.torch_engine import TorchEngine
from models.learning.adapter_files import CONFIG_FILE, WEIGHTS_FILE
from schemas.errors import ModelBusy, ModelUnavailable


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"), endless=True)


@pytest_asyncio.fixture
async def engine(model: Path) -> AsyncIterator[TorchEngine]:
    options = TorchEngineOptions(
        model.parent, str(model), slots=2, context_tokens_max=512, adapters_max=2, dtype="float32"
    )
    engine = TorchEngine(options)
    await engine.start()
    yield engine
    await engine.close()


@pytest.fixture
def adapters(tmp_path: Path) -> Path:
    """Folders a, b and c."""
    for seed, name in enumerate("abc"):
        write_tiny_adapter(tmp_path / name, seed)
    return tmp_path


def request(max_tokens: int = 8, **options: Any) -> GenerationRequest:
    sampling = SamplingParams(max_tokens=max_tokens)
    return GenerationRequest("r", ({"role": "user", "content": "x"},), sampling, **options)


async def versions(engine: TorchEngine, asked: GenerationRequest) -> set[str]:
    async with aclosing(engine.stream(asked)) as stream:
        return {piece.model_version async for piece in stream}


def rewritten(folder: Path, **config: Any) -> None:
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | config))


def with_value(value: float) -> dict[str, torch.Tensor]:
    tensors = tiny_tensors(0)
    next(iter(tensors.values()))[0, 0] = value
    return tensors


def renamed(old: str, new: str) -> dict[str, torch.Tensor]:
    return {name.replace(old, new): tensor for name, tensor in tiny_tensors(0).items()}


def cut(tensors: dict[str, torch.Tensor], size: int) -> dict[str, torch.Tensor]:
    return {n: t[:, :size].clone() if "lora_A" in n else t for n, t in tensors.items()}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        (with_value(float("nan")), "not finite"),
        (with_value(float("inf")), "not finite"),
        (cut(tiny_tensors(0), 63), "has matrices of"),
        (tiny_tensors(0, rank=3), f"says rank {RANK}"),
        (renamed("q_proj", "lm_head"), "no place for"),
        (renamed("layers.1.", "layers.2."), "no place for"),
        ({n: t for n, t in tiny_tensors(0).items() if "0.self_attn.q_proj.lora_B" not in n}, "one"),
        ({}, "no tensors"),
        ({next(iter(tiny_tensors(0))): torch.tensor(1.0)}, "has the shape"),
    ],
)
async def test_weights_that_do_not_fit_are_refused_and_the_old_version_goes_on(
    engine: TorchEngine, adapters: Path, tensors: dict[str, torch.Tensor], reason: str
) -> None:
    await engine.load_adapter("default", "a", adapters / "a")
    save_file(tensors, adapters / "b" / WEIGHTS_FILE)
    with pytest.raises(ModelUnavailable, match=reason):
        await engine.load_adapter("default", "b", adapters / "b")
    assert await versions(engine, request()) == {"a"}
    # And the slot that it might have taken is free.
    await engine.load_adapter("other", "c", adapters / "c")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"r": 0}, "says rank 0"),
        ({"use_dora": True}, "plain LoRA"),
        ({"alpha_pattern": {"q_proj": 1}}, "plain LoRA"),
        ({"lora_alpha": 1e300}, "not finite"),
        ({"lora_alpha": None}, "no LoRA adapter"),
        ({"target_modules": "all-linear"}, "no LoRA adapter"),
    ],
)
async def test_a_configuration_that_is_not_plain_lora_is_refused(
    engine: TorchEngine, adapters: Path, config: dict[str, Any], reason: str
) -> None:
    rewritten(adapters / "a", **config)
    with pytest.raises(ModelUnavailable, match=reason):
        await engine.load_adapter("default", "a", adapters / "a")
    assert await versions(engine, request()) == {"base"}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"a": 1}),
        b"",
        b"\xff" * 8 + b"{}",
        b"\x02\x00\x00\x00\x00\x00\x00\x00{}" + b"rest",
    ],
)
async def test_weights_that_are_no_safetensors_are_refused(
    engine: TorchEngine, adapters: Path, content: bytes
) -> None:
    (adapters / "a" / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(ModelUnavailable, match="no LoRA adapter"):
        await engine.load_adapter("default", "a", adapters / "a")


@pytest.mark.asyncio
async def test_a_truncated_file_is_refused(engine: TorchEngine, adapters: Path) -> None:
    path = adapters / "a" / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelUnavailable, match="no LoRA adapter"):
        await engine.load_adapter("default", "a", adapters / "a")


@pytest.mark.asyncio
async def test_a_rank_over_the_limit_is_refused(engine: TorchEngine, tmp_path: Path) -> None:
    write_tiny_adapter(tmp_path / "wide", 0, rank=65)
    with pytest.raises(ModelUnavailable, match="rank 65; this engine takes up to 64"):
        await engine.load_adapter("default", "wide", tmp_path / "wide")


@pytest.mark.asyncio
async def test_when_all_slots_are_in_use_the_same_may_do_later(
    engine: TorchEngine, adapters: Path
) -> None:
    await engine.load_adapter("default", "a", adapters / "a")
    async with aclosing(engine.stream(request(400))) as old:
        await anext(old)
        await engine.load_adapter("default", "b", adapters / "b")
        with pytest.raises(ModelBusy, match="All 2 adapter slots"):
            await engine.load_adapter("default", "c", adapters / "c")
        assert engine.model_version == "b"
    await until_free(engine)
    await engine.load_adapter("default", "c", adapters / "c")
    assert engine.model_version == "c"


@pytest.mark.asyncio
async def test_two_adapters_may_load_the_same_version_at_once(
    engine: TorchEngine, adapters: Path
) -> None:
    names = ["default", "x", "y", "z"]
    await asyncio.gather(*(engine.load_adapter(n, "a", adapters / "a") for n in names))
    # It took one of the two slots.
    await engine.load_adapter("default", "b", adapters / "b")
    for name, version in zip(names, "baaa", strict=True):
        assert await versions(engine, request(adapter=name)) == {version}


@pytest.mark.asyncio
async def test_a_pinned_version_outlives_a_swap(engine: TorchEngine, adapters: Path) -> None:
    await engine.load_adapter("default", "a", adapters / "a")
    with engine.pinned("default") as version:
        await engine.load_adapter("default", "b", adapters / "b")
        assert await versions(engine, request(model_version=version)) == {"a"}
        assert await versions(engine, request()) == {"b"}
    # Its slot is free again.
    await engine.load_adapter("default", "c", adapters / "c")


async def until_free(engine: TorchEngine) -> None:
    async with asyncio.timeout(5):
        while engine.running:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
