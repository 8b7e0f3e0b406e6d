"""Builds the parts of a local engine around a loaded model."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from models.engine.batch_model import BatchModel, Work
from models.engine.decode_graphs import DecodeGraphs
from models.engine.elementwise import compiled
from models.engine.kv_memory import KvMemory
from models.engine.linears import can_pack_onednn, padded_rows, rows_4bit_max
from models.engine.llama import Llama, Shape
from models.engine.load import Loaded
from models.engine.low_rank import BASE, Stacks
from models.engine.metrics import EngineMetrics
from models.engine.options import TorchEngineOptions
from models.engine.scheduler import ROWS_WITH_GUESSES_MAX, Scheduler
from models.engine.versions import Versions
from models.weights import PACKAGED_MODEL
from schemas.errors import SettingsInvalid

log = logging.getLogger(__name__)

# What a request is expected to take, prompt and answer, where no limit is set.
ROW_TOKENS_DEFAULT = 512


def assemble(
    options: TorchEngineOptions, loaded: Loaded, context_tokens_max: int, threads: int
) -> list[Scheduler]:
    """A scheduler for each lane, with its memory, over one model and its adapters; warm.

    Raises SettingsInvalid.
    """
    model = Llama(loaded.model, context_tokens_max, few_rows_4bit(options))
    like = model.embeddings
    wanted = min(options.slots, options.lanes or lanes_favoured(like, threads))
    tokens_max = kv_tokens_max(
        options, model.shape, like.element_size(), context_tokens_max, wanted
    )
    lanes = min(wanted, tokens_max // _least_tokens(context_tokens_max))
    if options.compile == "true" or (options.compile == "auto" and like.is_cuda):
        _compile(model)
    stacks = Stacks(model.shape, options.adapters_max, like)
    versions, metrics = Versions(stacks), EngineMetrics()
    schedulers = []
    for lane in range(lanes):
        graphs = DecodeGraphs(model, stacks) if options.cuda_graphs and like.is_cuda else None
        kv = KvMemory(model.shape, tokens_max // lanes, context_tokens_max, like)
        scheduler = Scheduler(
            BatchModel(model, kv, stacks, graphs),
            versions,
            loaded.end_tokens,
            # The first lanes have one more where they do not come out even.
            (options.slots + lanes - 1 - lane) // lanes,
            options.prompt_tokens_step,
            # A pass with guesses is not recorded, and Python takes longer for it than it saves.
            0 if graphs else options.guesses_max,
            metrics,
        )
        _warm_up(scheduler.model)
        schedulers.append(scheduler)
    for count in sorted({max(1, threads // lanes), threads}):
        torch.set_num_threads(count)
        _build_products(model, options.prompt_tokens_step + ROWS_WITH_GUESSES_MAX)
    return schedulers


def lanes_favoured(like: Tensor, threads: int) -> int:
    """How many lanes weights such as `like` are served by fastest.

    Two where a pass takes longer to multiply than to read the weights, which each lane does for
    itself: float32 without AVX512. Measured with two threads (docs/LOG.md); with more, or on other
    processors, one lane is what was measured.
    """
    slow = like.dtype == torch.float32 and can_pack_onednn(like) and rows_4bit_max(like.dtype) == 4
    return 2 if slow and threads == 2 else 1


def few_rows_4bit(options: TorchEngineOptions) -> bool:
    """Whether few rows may be multiplied with weights of 4 bits and in bfloat16.

    By itself only for the model whose file has 4 bits, and not where float32 was asked for.
    """
    if options.weights == "auto":
        return options.model == PACKAGED_MODEL and options.dtype != "float32"
    return options.weights == "4bit"


def kv_tokens_max(
    options: TorchEngineOptions,
    shape: Shape,
    element_bytes: int,
    context_tokens_max: int,
    lanes: int = 1,
) -> int:
    """How many positions keys and values of all lanes have memory for. Raises SettingsInvalid where
    one lane has too little; for more of them that is not asked."""
    least = _least_tokens(context_tokens_max)
    if options.kv_bytes_max is None:
        return max(options.slots * min(context_tokens_max, ROW_TOKENS_DEFAULT), lanes * least)
    token_bytes = shape.layers * shape.kv_size * element_bytes
    tokens = options.kv_bytes_max // token_bytes
    if tokens < least:
        raise SettingsInvalid(
            f"kv_bytes_max {options.kv_bytes_max} holds {tokens} tokens, and one request of "
            f"{context_tokens_max} tokens needs {least}.",
            f"Set it to {least * token_bytes} or more, or lower context_tokens_max.",
        )
    return tokens


def _least_tokens(context_tokens_max: int) -> int:
    """A row moves while it grows, and a prompt into its row: one request needs two places at
    once."""
    return 2 * context_tokens_max


def _compile(model: Llama) -> None:
    shape = model.shape
    qkv_size = shape.query_size + shape.kv_size
    try:
        model.parts = compiled(qkv_size, shape.head_size, shape.inner, model.embeddings)
    except Exception as error:
        log.warning(
            "torch.compile does not work here: %s. The engine goes on without it. "
            "Install a C++ compiler (on a GPU Triton too), or set HEADWATER_GENERATE_COMPILE=false",
            str(error).partition("\n")[0],
        )


def _build_products(model: Llama, rows_max: int) -> None:
    """oneDNN builds code for each number of float32 rows that comes: not at the cost of requests,
    and what it takes does not look like a leak."""
    like, shape, layer = model.embeddings, model.shape, model.layers[0]
    if like.dtype != torch.float32 or not can_pack_onednn(like):
        return
    sizes = sorted({padded_rows(count) for count in range(1, rows_max + 1)})
    for linear, in_size in (
        (layer.qkv, shape.hidden),
        (layer.out, shape.query_size),
        (layer.gate_up, shape.hidden),
        (layer.down, shape.inner),
    ):
        for size in sizes:
            linear(like.new_zeros(size, in_size))
    for size in (size for size in sizes if size <= ROWS_WITH_GUESSES_MAX):
        model.head(like.new_zeros(size, shape.hidden))


def _warm_up(batch: BatchModel) -> None:
    """The first passes choose and build kernels: not at the cost of the first request."""
    for rows in (1, 8):
        held = [batch.kv.admit(8) for _ in range(rows)]
        works = [Work(h, [0] * 8, BASE, True) for h in held if h is not None]
        batch.run(works)
        for work in works:
            batch.kv.settle(work.held)
        # A graph is recorded the second time: whether that works is known before the first request.
        for _ in range(2 if batch.graphs else 1):
            batch.run([Work(work.held, [0], BASE, True) for work in works])
        for work in works:
            batch.kv.release(work.held)
