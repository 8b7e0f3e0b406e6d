"""Recorded passes: what a GPU would repeat, repeated on a CPU and held against ordinary passes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_adapter import tiny_tensors
from tiny_model import build_tiny_model
from torch import Tensor
from torch import _inductor as inductor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM

from models.engine import arena, decode_graphs
from models.engine.arrange import Matrices, arrange
from models.engine.assemble import assemble
from models.engine.batch_model import BatchModel, Work
from models.engine.decode_graphs import DecodeGraphs, DecodePass, Pass
from models.engine.detokenize import TextStream
from models.engine.elementwise import gated
from models.engine.kv_memory import KvMemory
from models.engine.llama import Llama
from models.engine.load import Loaded, load
from models.engine.low_rank import Stacks
from models.engine.options import TorchEngineOptions
from models.engine.protocol import Piece, SamplingParams
from models.engine.sampling import Sampler
from models.engine.scheduler import Scheduler
from models.engine.sequence import Sequence as Request

CONTEXT_TOKENS = 512
TOKEN_BYTES = 2 * 2 * 2 * 16 * 4  # layers, keys and values, key heads, head size, float32


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = build_tiny_model(tmp_path_factory.mktemp("tiny"), endless=True)
    return load(str(folder), folder.parent, "cpu", "float32")


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Rows are copied when their number changes, and the engine's thread is in inference mode."""
    monkeypatch.setattr(arena, "_LAZY", False)
    with torch.inference_mode():
        yield


class Recorder:
    """A recording's operations, on the very tensors that they were recorded with: as a graph does,
    it knows nothing of what Python would have decided later."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, decode: Pass) -> Pass:
        operations = make_fx(decode)()
        self.recorded += 1

        def replay() -> Tensor:
            self.replayed += 1
            hidden: Tensor = operations()
            return hidden

        return replay


def scheduler_of(loaded: Loaded, kv_tokens: int = 4096, **options: Any) -> Scheduler:
    chosen = TorchEngineOptions(
        Path(),
        slots=6,
        context_tokens_max=CONTEXT_TOKENS,
        kv_bytes_max=kv_tokens * TOKEN_BYTES,
        prompt_tokens_step=64,
        guesses_max=0,
        # Passes of more or fewer rows are compared: all must have the same weights.
        weights="full",
        adapters_max=3,
        **options,
    )
    [scheduler] = assemble(chosen, loaded, CONTEXT_TOKENS, threads=1)
    return scheduler


def recording(scheduler: Scheduler) -> Recorder:
    batch, recorder = scheduler.model, Recorder()
    batch.graphs = DecodeGraphs(batch.model, batch.adapters, recorder)
    return recorder


def load_adapter(scheduler: Scheduler, version: str, rank: int) -> None:
    shape = scheduler.model.model.shape
    adapter = arrange(tiny_tensors(sum(version.encode()), rank), 4.0, shape, torch.float32)
    scheduler.versions.load(version, adapter)


def request(loaded: Loaded, prompt: list[int], max_tokens: int, version: str = "base") -> Request:
    pieces: list[Piece] = []
    found = Request(
        "r",
        prompt,
        max_tokens,
        Sampler(SamplingParams(), prompt),
        TextStream(loaded.tokenizer, ()),
        "default",
        version,
    )
    found.send = pieces.append
    return found


def answers(scheduler: Scheduler, requests: Sequence[Request]) -> list[list[int]]:
    scheduler.waiting.extend(requests)
    while not scheduler.idle:
        scheduler.step()
    return [asked.tokens for asked in requests]


def compared(monkeypatch: pytest.MonkeyPatch, batch: BatchModel) -> list[float]:
    """Every pass runs again without graphs; returns how far apart the logits of each are."""
    run = batch.run
    apart: list[float] = []

    def twice(works: Sequence[Work]) -> tuple[list[Work], Tensor]:
        reads = [work.held.read for work in works]
        ended, logits = run(works)
        graphs, batch.graphs = batch.graphs, None
        for work, read in zip(works, reads, strict=True):
            work.held.read = read
        again, plain = run(works)
        batch.graphs = graphs
        same = graphs is not None and again == ended
        if ended:
            apart.append(float((logits - plain).abs().max()) if same else torch.inf)
        return ended, logits

    monkeypatch.setattr(batch, "run", twice)
    return apart


def come_and_go(loaded: Loaded, scheduler: Scheduler) -> None:
    """Requests of three adapters and none, of which some are cancelled, and some preempted."""
    rng = random.Random(0)
    for step in range(150):
        if step in (0, 40, 80):
            load_adapter(scheduler, f"v{step}", rank=2)
        if rng.random() < 0.3:
            prompt = [rng.randrange(3, 300) for _ in range(rng.choice([1, 20, 220, 300]))]
            version = rng.choice(["base", *scheduler.versions.loaded()])
            scheduler.waiting.append(request(loaded, prompt, rng.randrange(1, 120), version))
        if rng.random() < 0.02 and scheduler.running:
            rng.choice(scheduler.running).cancelled = True
        scheduler.step()
    assert scheduler.metrics.registry.get_sample_value("headwater:num_preemptions_total")


def test_replayed_passes_are_ordinary_ones_whatever_comes_and_goes(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = scheduler_of(loaded, kv_tokens=2000)
    recorder = recording(scheduler)
    apart = compared(monkeypatch, scheduler.model)
    come_and_go(loaded, scheduler)
    assert len(apart) > 100 and max(apart) < 1e-3
    assert recorder.replayed > 2 * recorder.recorded > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compile", ["false", "true"])
def test_graphs_on_a_gpu_repeat_ordinary_passes(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, compile: str
) -> None:
    folder = loaded.model.config.name_or_path
    on_gpu = load(folder, Path(), "cuda", "float32")
    scheduler = scheduler_of(on_gpu, kv_tokens=2000, compile=compile)
    assert scheduler.model.graphs is not None
    assert (scheduler.model.model.parts.gated is gated) == (compile == "false")
    apart = compared(monkeypatch, scheduler.model)
    come_and_go(on_gpu, scheduler)
    assert len(apart) > 100 and max(apart) < 1e-3


def test_a_swap_is_replayed_from_its_place_and_a_wider_adapter_is_recorded_anew(
    loaded: Loaded,
) -> None:
    plain, scheduler = scheduler_of(loaded), scheduler_of(loaded)
    recorder = recording(scheduler)
    recorded = []
    for version, rank in (("first", 2), ("swapped", 2), ("wider", 3)):
        for each in (plain, scheduler):
            load_adapter(each, version, rank)
        expected = answers(plain, [request(loaded, [5, 6, 7], 12, version)])
        assert answers(scheduler, [request(loaded, [5, 6, 7], 12, version)]) == expected
        recorded.append(recorder.recorded)
        for each in (plain, scheduler):
            each.versions.unload("default", version)
    assert recorded == [1, 1, 2]


def test_where_nothing_can_be_recorded_answers_go_on_with_one_warning(
    loaded: Loaded, caplog: pytest.LogCaptureFixture
) -> None:
    asked = [[5, 6, 7], [8, 9]]
    expected = answers(scheduler_of(loaded), [request(loaded, one, 20) for one in asked])

    def refuse(decode: Pass) -> Pass:
        raise RuntimeError("operation not permitted\nwhen a stream is recorded")

    scheduler = scheduler_of(loaded)
    scheduler.model.graphs = DecodeGraphs(scheduler.model.model, scheduler.model.adapters, refuse)
    assert answers(scheduler, [request(loaded, one, 20) for one in asked]) == expected
    (warning,) = caplog.records
    assert "operation not permitted. Answers go on" in warning.message
    assert "HEADWATER_GENERATE_CUDA_GRAPHS=false" in warning.message and not warning.exc_info


def test_only_so_many_recordings_are_kept(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_graphs, "GRAPHS_MAX", 1)
    scheduler = scheduler_of(loaded)
    recorder = recording(scheduler)
    for _ in range(2):
        for together in (1, 3):
            answers(scheduler, [request(loaded, [5, 6, 7], 6) for _ in range(together)])
    assert recorder.recorded == 4


class OffTheGpu(TorchDispatchMode):
    """The operations that had to do with tensors of another device: no graph can repeat them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        made = func(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves((args, made)) if isinstance(each, Tensor)]
        # Tensors without contents ask where they are by an operation of their own.
        if func is not torch.ops.prim.device.default and not all(t.is_cuda for t in tensors):
            self.seen.add(str(func))
        return made


def test_a_pass_and_its_adapters_keep_to_the_gpu(loaded: Loaded) -> None:
    """Tensors without contents know their device on every machine, and that there is no value to
    look at."""
    # Some operations cannot be seen in inference mode.
    with torch.inference_mode(False), torch.no_grad(), FakeTensorMode():
        with torch.device("cuda"):
            module = AutoModelForCausalLM.from_config(loaded.model.config, dtype=torch.bfloat16)
        model = Llama(module, CONTEXT_TOKENS, few_rows_4bit=False)
        kv = KvMemory(model.shape, 4096, CONTEXT_TOKENS, model.embeddings)
        batch = BatchModel(model, kv, Stacks(model.shape, 4, model.embeddings))
        adapter = Matrices(*torch.zeros(2, 2, 3, 128, dtype=torch.bfloat16))
        batch.adapters.put(1, {"qkv": Matrices(adapter.down[..., :64], adapter.up)})
        works = [Work(held, [0] * 40, 1, True) for _ in range(2) if (held := kv.admit(40))]
        batch.run(works)
        for work in works:
            kv.settle(work.held)
        batch.run([Work(work.held, [0], slot, True) for slot, work in enumerate(works)])
        decode = DecodePass(model, [(kv.arenas[0], 2)], batch.adapters)
        with OffTheGpu() as off:
            assert decode().shape == (2, 64)
    assert off.seen == set()


@pytest.mark.long
def test_compiled_answers_are_the_plain_ones(loaded: Loaded) -> None:
    prompts = [[5, 6, 7], [8], list(range(20, 200)), [40, 50]]
    found = []
    for compile in ("false", "true"):
        scheduler = scheduler_of(loaded, compile=compile)
        assert (scheduler.model.model.parts.gated is gated) == (compile == "false")
        load_adapter(scheduler, "a", rank=2)
        asked = [request(loaded, p, 60 + len(p), v) for p in prompts for v in ("base", "a")]
        found.append(answers(scheduler, asked))
    assert found[0] == found[1]


@pytest.mark.long
def test_without_a_compiler_the_engine_goes_on_with_one_warning(
    loaded: Loaded,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    with inductor.config.patch({"cpp.cxx": (None, "/no/compiler")}):
        scheduler = scheduler_of(loaded, compile="true")
    assert scheduler.model.model.parts.gated is gated
    (warning,) = [each for each in caplog.records if each.levelname == "WARNING"]
    assert "No working C++ compiler" in warning.message and not warning.exc_info
    assert "HEADWATER_GENERATE_COMPILE=false" in warning.message
