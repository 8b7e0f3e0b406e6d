"""The local engine: its own threads do all tensor work, the event loop only passes pieces on."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from prometheus_client import CollectorRegistry

from models.background import breathing, yield_to_others
from models.engine.arrange import arrange
from models.engine.assemble import assemble
from models.engine.chat import encode_chat
from models.engine.detokenize import TextStream
from models.engine.grammar import Grammars
from models.engine.lanes import Lanes, Made, Outbox
from models.engine.load import Loaded, load
from models.engine.options import TorchEngineOptions
from models.engine.protocol import (
    BASE_VERSION,
    DEFAULT_ADAPTER,
    GenerationRequest,
    Message,
    Piece,
    SamplingParams,
)
from models.engine.sampling import Sampler
from models.engine.sequence import Sequence
from models.learning.adapter_files import read_adapter
from models.weights import recorded_name
from schemas.errors import DataInvalid, EventInvalid, GenerationFailed, ModelUnavailable

log = logging.getLogger(__name__)

# torch's choice, which OMP_NUM_THREADS changes.
_THREADS: Final = torch.get_num_threads()
# Whoever fetched an adapter has just kept the engine's threads waiting: not twice in one step.
_AFTER_FETCH_S: Final = 0.03


class TorchEngine:
    """An `Engine` over a Hugging Face causal model on this machine's CPU or GPU.

    All methods belong to the event loop that `start` ran in. On a CPU, no other thread of the
    process should compute with torch: two OpenMP pools on the same cores halve each other's speed.
    """

    def __init__(self, options: TorchEngineOptions) -> None:
        self.options = options
        self.model = recorded_name(options.model)
        # The model may allow less: final after `start`.
        self.context_tokens_max = options.context_tokens_max
        self._open: set[Outbox] = set()
        self._loaded: Loaded | None = None
        self._grammars: Grammars | None = None
        self._lanes: Lanes | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._ended = asyncio.Event()
        # One adapter at a time: two would write the same stacks.
        self._loading = asyncio.Lock()
        self._loader = ThreadPoolExecutor(1, "headwater-adapters", yield_to_others)

    async def start(self) -> None:
        """Loads and warms up: the default model takes 1 s, and 10 s more the first time.

        Raises ModelUnavailable, or SettingsInvalid for an unknown device or dtype.
        """
        self._loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(
            target=self._work, args=(ready,), name="headwater-engine", daemon=True
        )
        self._thread.start()
        try:
            await ready
        except asyncio.CancelledError:
            # A process that ends around a thread in torch's C++ is aborted.
            await self.close()
            raise

    def stream(self, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        """See `Engine.stream`. Tokenises the prompt at once: about 1 ms for 1,000 tokens."""
        tokenizer = self._started().tokenizer
        prompt = encode_chat(tokenizer, request.messages)
        room = self.context_tokens_max - len(prompt)
        if room < 1:
            raise EventInvalid(
                f"The prompt has {len(prompt)} tokens; "
                f"{self.model} takes at most {self.context_tokens_max - 1} here.",
                "Shorten the messages, ask for fewer passages, or raise context_tokens_max.",
            )
        outbox: Outbox = asyncio.Queue()
        sequence = Sequence(
            request_id=request.request_id,
            prompt=prompt,
            max_tokens=min(request.sampling.max_tokens, room),
            sampler=Sampler(request.sampling, prompt),
            text=TextStream(tokenizer, request.sampling.stop),
            adapter=request.adapter,
            version=request.model_version,
        )
        return self._pieces(sequence, outbox, request.sampling)

    def count_tokens(self, messages: tuple[Message, ...]) -> int:
        """Tokens of the whole prompt, the chat template's own included. Raises EventInvalid."""
        return len(encode_chat(self._started().tokenizer, messages))

    async def load_adapter(self, name: str, version: str, folder: Path | None) -> None:
        """See `Engine.load_adapter`. Everything slow happens beside the event loop and beside the
        engine's threads; then one reference changes."""
        lanes = self._lanes_now()
        async with self._loading:
            if not lanes.versions.keep(version):
                rank_max = self.options.adapter_rank_max
                await self._loop.run_in_executor(
                    self._loader, _load_adapter, lanes, version, folder, rank_max
                )
            lanes.versions.go_live(name, version)

    async def unload_adapter(self, name: str, version: str) -> None:
        """See `Engine.unload_adapter`. Returns at once; the last open answer frees the memory."""
        self._lanes_now().versions.unload(name, version)

    async def close(self) -> None:
        """Ends open streams with GenerationFailed, then the threads; frees the model."""
        if self._thread is None:
            return
        self._stop()
        await self._ended.wait()
        # Its last act was to set the event, so this returns at once.
        self._thread.join()
        self._loader.shutdown(wait=False)
        self._loaded = self._lanes = None

    @contextmanager
    def pinned(self, adapter: str) -> Iterator[str]:
        """See `Engine.pinned`."""
        versions = self._lanes_now().versions
        version = versions.start(adapter, None)
        try:
            yield version
        finally:
            versions.end(version)

    @property
    def model_version(self) -> str:
        """The live version of the default adapter."""
        return self._lanes.versions.live(DEFAULT_ADAPTER) if self._lanes else BASE_VERSION

    @property
    def metrics(self) -> CollectorRegistry:
        """What Prometheus may scrape."""
        return self._lanes_now().metrics.registry

    @property
    def running(self) -> int:
        return self._lanes.running if self._lanes else 0

    @property
    def waiting(self) -> int:
        return self._lanes.waiting if self._lanes else 0

    async def _pieces(
        self, sequence: Sequence, outbox: Outbox, params: SamplingParams
    ) -> AsyncGenerator[Piece, None]:
        # A generator's body starts when it is first read: nothing is queued for nobody.
        self._started()
        await self._prepare(sequence, params)
        self._open.add(outbox)
        self._lanes_now().submit(sequence, outbox)
        try:
            while True:
                piece = await outbox.get()
                if isinstance(piece, GenerationFailed):
                    raise piece
                yield piece
                if piece.finish_reason is not None:
                    return
        finally:
            sequence.cancelled = True
            self._open.discard(outbox)

    async def _prepare(self, sequence: Sequence, params: SamplingParams) -> None:
        """What may take long and is not done in a lane's thread: grammar and vocabulary."""
        assert self._grammars is not None
        if params.logprobs:
            sequence.vocabulary = await self._grammars.vocabulary()
        grammar = await self._grammars.grammar(params)
        if grammar is not None:
            sequence.sampler = Sampler(params, sequence.prompt, grammar)
        self._started()

    def _started(self) -> Loaded:
        if self._loaded is None or self._ended.is_set():
            raise _not_running()
        return self._loaded

    def _lanes_now(self) -> Lanes:
        self._started()
        assert self._lanes is not None
        return self._lanes

    def _stop(self) -> None:
        self._closing.set()
        if self._lanes is not None:
            self._lanes.stop()

    # From here on: the worker threads. The first one loads, and starts those of the other lanes.

    @torch.inference_mode()
    def _work(self, ready: asyncio.Future[None]) -> None:
        try:
            lanes = self._lanes = self._load()
            if self._closing.is_set():
                lanes.stop()
            self._in_loop(_resolve, ready, None)
            lanes.run()
        except Exception as error:
            log.exception("the engine's thread ends")
            self._in_loop(_resolve, ready, error)
        finally:
            self._in_loop(self._end)

    def _load(self) -> Lanes:
        options = self.options
        threads = options.threads or _THREADS
        # Always said, for `_load_adapter` changes what a thread has by default.
        torch.set_num_threads(threads)
        loaded = load(options.model, options.cache_dir, options.device, options.dtype)
        self.context_tokens_max = min(options.context_tokens_max, loaded.context_tokens_max)
        schedulers = assemble(options, loaded, self.context_tokens_max, threads)
        lanes = Lanes(schedulers, threads, options.prompt_tokens_step, self._hand_over)
        lanes.metrics.watch("num_requests_running", "In the batch.", lambda: lanes.running)
        lanes.metrics.watch("num_requests_waiting", "Not started.", lambda: lanes.waiting)
        lanes.metrics.watch("kv_cache_usage_perc", "1 is full.", lambda: lanes.kv_usage)
        lanes.metrics.watch("lora_loaded", "Adapters.", lambda: len(lanes.versions.loaded()))
        vocabulary_size = loaded.model.get_output_embeddings().weight.shape[0]
        self._grammars = Grammars(loaded.tokenizer, vocabulary_size, loaded.end_tokens)
        self._loaded = loaded
        return lanes

    def _hand_over(self, made: Made) -> None:
        self._in_loop(_put, made)

    def _in_loop(self, callback: Callable[..., Any], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            # The loop was closed and the engine was not: nobody listens any more.
            self._stop()

    def _end(self) -> None:
        """Runs in the loop, like every submission, so that no stream is left waiting."""
        self._ended.set()
        for outbox in self._open:
            outbox.put_nowait(_not_running())


@torch.inference_mode()
def _load_adapter(lanes: Lanes, version: str, folder: Path | None, rank_max: int) -> None:
    """Runs in a thread of its own. Raises ModelUnavailable."""
    # A second pool of OpenMP threads would slow the engine down for good: see docs/LOG.md.
    torch.set_num_threads(1)
    if folder is None:
        raise ModelUnavailable(f"Version {version!r} is not loaded.", "Name its folder.")
    if lanes.running:
        time.sleep(_AFTER_FETCH_S)
    breathe = breathing(lambda: lanes.running > 0)
    try:
        tensors, lora = read_adapter(folder)
    except DataInvalid as error:
        raise ModelUnavailable(error.message, error.remedy) from error
    if lora.rank > rank_max:
        raise ModelUnavailable(
            f"The adapter has rank {lora.rank}; this engine takes up to {rank_max}.",
            "Train it with a lower rank, or raise adapter_rank_max: it costs memory in each slot.",
        )
    model = lanes.model
    breathe()
    adapter = arrange(tensors, lora.scaling, model.shape, model.dtype)
    breathe()
    lanes.versions.load(version, adapter, breathe)


def _not_running() -> GenerationFailed:
    return GenerationFailed("The engine is not running.", "Start it, or ask a replica that runs.")


def _put(made: Made) -> None:
    for outbox, piece in made:
        outbox.put_nowait(piece)


def _resolve(ready: asyncio.Future[None], error: Exception | None) -> None:
    """Ends `start`, if somebody still waits for it."""
    if ready.done():
        return
    if error is None:
        ready.set_result(None)
    else:
        ready.set_exception(error)
