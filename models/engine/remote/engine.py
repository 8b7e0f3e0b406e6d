"""An engine over a server that speaks OpenAI's API: vLLM, llama-cpp-python's, others."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge

from models.engine.protocol import (
    BASE_VERSION,
    DEFAULT_ADAPTER,
    METRICS_PREFIX,
    GenerationRequest,
    Message,
    Piece,
)
from models.engine.remote.adapters import RemoteAdapters, served_name
from models.engine.remote.answer import RemoteAnswer
from models.engine.remote.chunks import Tally
from models.engine.remote.client import ServerClient
from models.engine.remote.options import RemoteEngineOptions
from models.engine.remote.start import await_server, choose_dialect, choose_model
from models.engine.remote.tokens import TokenCounter
from models.engine.remote.waits import Waits
from models.engine.remote.wire import DIALECTS, chat_body
from schemas.errors import ModelUnavailable

log = logging.getLogger("headwater.generate")

# More than a chat template adds of its own, a default system message included.
_TEMPLATE_TOKENS_MAX = 256


class RemoteEngine:
    """An `Engine` that passes requests on. All methods belong to the event loop of `start`.

    A request is sent again, after a pause, while the server cannot be reached, is busy or fails,
    but only until its first text has come: no text comes twice. What then still fails is an answer
    with finish_reason "error" if it may be this request's fault, and GenerationFailed if no request
    would do better, so that prompts wait for the server instead of failing one by one.
    """

    def __init__(self, options: RemoteEngineOptions) -> None:
        self.options = options
        # Model and context are final after `start`.
        self.model = options.model
        self.context_tokens_max = options.context_tokens_max
        self._dialect = DIALECTS["openai"]
        self._waits = Waits()
        self._places = asyncio.Semaphore(options.requests_max)
        self._waiting = 0
        self._running = 0
        # Users by the model's name at the server: the base model's, or adapter@version.
        self._open: Counter[str] = Counter()
        self._adapters: RemoteAdapters | None = None
        self._forgetting: set[asyncio.Task[None]] = set()
        self.metrics = CollectorRegistry()
        for name, meaning, read in (
            ("num_requests_running", "Open at the server.", lambda: self.running),
            ("num_requests_waiting", "Not sent yet.", lambda: self.waiting),
        ):
            Gauge(f"{METRICS_PREFIX}{name}", meaning, registry=self.metrics).set_function(read)

    async def start(self) -> None:
        """Waits for the server, for up to `start_timeout_s`. Raises ModelUnavailable."""
        self._tokens = await asyncio.to_thread(TokenCounter, self.options)
        self._client = ServerClient(self.options)
        self._waits.closed = False
        self._adapters = RemoteAdapters(self._client)
        cards = await await_server(self._client, self.options.start_timeout_s)
        card = choose_model(cards, self.options.model)
        self.model = card.id
        self._dialect = choose_dialect(card, self.options.server)
        self.context_tokens_max = min(
            self.options.context_tokens_max, card.max_model_len or self.options.context_tokens_max
        )
        log.info("%s at %s speaks %s", self.model, self._client.url, self._dialect.name)

    def stream(self, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        """See `Engine.stream`. A prompt without room for an answer is refused at once where a
        tokenizer is set, else by the server, when the answer is first read.
        """
        self._waits.require_open()
        messages, sampling = request.messages, request.sampling
        count = self._tokens.count(messages)
        room = self._tokens.room(count, self.context_tokens_max)
        version = request.model_version or self._loaded().live(request.adapter)
        served = self._served(request.adapter, version)
        body = chat_body(self._dialect, served, messages, sampling)
        if room is not None:
            body["max_tokens"] = min(sampling.max_tokens, room)
        # Whatever the tokenizer, a token has at least one byte.
        tokens_most = _TEMPLATE_TOKENS_MAX + sum(len(m["content"].encode()) for m in messages)
        return self._pieces(
            RemoteAnswer(
                self._client,
                self.options,
                self._loaded(),
                self._waits,
                body,
                Tally(count, version),
                may_shorten=tokens_most + sampling.max_tokens >= self.context_tokens_max,
            )
        )

    def count_tokens(self, messages: tuple[Message, ...]) -> int:
        """Tokens of the whole prompt: exact with a tokenizer, else estimated, rather too high.

        Raises EventInvalid.
        """
        self._waits.require_open()
        return self._tokens.count(messages)

    async def close(self) -> None:
        """Ends open streams with GenerationFailed. The server goes on."""
        if not self._waits.closed:
            self._waits.close()
            for task in self._forgetting:
                task.cancel()
            await asyncio.gather(*self._forgetting, return_exceptions=True)
            await self._client.close()

    @property
    def running(self) -> int:
        return self._running

    @property
    def waiting(self) -> int:
        return self._waiting

    async def load_adapter(self, name: str, version: str, folder: Path | None) -> None:
        """Has the server load `folder`; once this returns, new answers come from that version.

        Open answers end with the version that they began with. A version that is loaded already is
        only switched to, which is how to roll back: the server keeps the last few of each adapter.
        It must see the folder under the same path. Raises ModelUnavailable when the server refuses
        it; then everything is as before.
        """
        self._waits.require_open()
        adapters = self._loaded()
        await adapters.load(name, version, folder)
        for old in adapters.outdated(name):
            task = asyncio.create_task(self._forget(name, old))
            self._forgetting.add(task)
            task.add_done_callback(self._forgetting.discard)

    async def unload_adapter(self, name: str, version: str) -> None:
        """Has the server forget a version, after the answers that use it have ended.

        If it was live, new answers come from the base model from now on. One that the server does
        not have is no error. Raises ModelUnavailable when the server refuses.
        """
        self._waits.require_open()
        self._loaded().retire(name, version)
        if version != BASE_VERSION:
            await self._loaded().unload(name, version, self._open)

    async def _forget(self, name: str, version: str) -> None:
        try:
            await self.unload_adapter(name, version)
        except ModelUnavailable as error:
            log.warning("%s", error)

    @contextmanager
    def pinned(self, adapter: str) -> Iterator[str]:
        """See `Engine.pinned`."""
        version = self._loaded().live(adapter)
        with self._counted(self._served(adapter, version)):
            yield version

    @property
    def model_version(self) -> str:
        """The live version of the default adapter."""
        return self._adapters.live(DEFAULT_ADAPTER) if self._adapters else BASE_VERSION

    def _loaded(self) -> RemoteAdapters:
        self._waits.require_open()
        assert self._adapters is not None
        return self._adapters

    def _served(self, adapter: str, version: str) -> str:
        """What the server calls a version of an adapter."""
        return self.model if version == BASE_VERSION else served_name(adapter, version)

    @contextmanager
    def _counted(self, served: str) -> Iterator[None]:
        """While the block lasts, that model of the server counts as used."""
        self._open[served] += 1
        try:
            yield
        finally:
            self._open[served] -= 1
            if self._adapters is not None:
                self._adapters.left(served, self._open)

    async def _pieces(self, answer: RemoteAnswer) -> AsyncGenerator[Piece, None]:
        # From now on, for its version must not be unloaded while it waits.
        with self._counted(answer.body["model"]):
            await self._take_place()
            self._running += 1
            try:
                async with aclosing(answer.pieces()) as pieces:
                    async for piece in pieces:
                        yield piece
            finally:
                self._running -= 1
                self._places.release()

    async def _take_place(self) -> None:
        self._waiting += 1
        try:
            async with self._waits.until(None):
                await self._places.acquire()
        finally:
            self._waiting -= 1
