"""An engine over a server that speaks OpenAI's API: vLLM, llama-cpp-python's, others."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from models.engine.protocol import BASE_VERSION, GenerationRequest, Message, Piece
from models.engine.remote.adapters import RemoteAdapters
from models.engine.remote.answer import RemoteAnswer
from models.engine.remote.client import ServerClient
from models.engine.remote.options import RemoteEngineOptions
from models.engine.remote.start import await_server, choose_dialect, choose_model
from models.engine.remote.tally import Tally
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
        # Both are final after `start`.
        self.model = options.model
        self.context_tokens_max = options.context_tokens_max
        self._dialect = DIALECTS["openai"]
        self._waits = Waits()
        self._places = asyncio.Semaphore(options.requests_max)
        self._waiting = 0
        # Open answers by the model's name at the server: the base model's, or adapter@version.
        self._open: Counter[str] = Counter()

    async def start(self) -> None:
        """Waits for the server, for up to `start_timeout_s`. Raises ModelUnavailable."""
        self._tokens = await asyncio.to_thread(TokenCounter, self.options)
        self._client = ServerClient(self.options)
        self._adapters = RemoteAdapters(self._client)
        self._waits.closed = False
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
        tokenizer is set, else by the server, when the answer is first read. A version that is not
        loaded is an answer with finish_reason "error".
        """
        self._waits.require_open()
        messages, sampling = request.messages, request.sampling
        count = self._tokens.count(messages)
        room = self._tokens.room(count, self.context_tokens_max)
        body = chat_body(self._dialect, messages, sampling)
        if room is not None:
            body["max_tokens"] = min(sampling.max_tokens, room)
        # Whatever the tokenizer, a token has at least one byte.
        tokens_most = _TEMPLATE_TOKENS_MAX + sum(len(m["content"].encode()) for m in messages)
        may_shorten = tokens_most + sampling.max_tokens >= self.context_tokens_max
        return self._pieces(request, body, Tally(count, sampling.top_logprobs), may_shorten)

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
            await self._client.close()

    @property
    def model_version(self) -> str:
        return BASE_VERSION if self._waits.closed else self._adapters.live()

    @property
    def running(self) -> int:
        return self._open.total()

    @property
    def waiting(self) -> int:
        return self._waiting

    async def load_adapter(self, name: str, version: str, folder: Path) -> None:
        """Has the server load `folder`; once this returns, new answers come from that version.

        Open answers end with the version that they began with. A version that is loaded already is
        only switched to, which is how to roll back. The server must see the folder under the same
        path. Raises ModelUnavailable when the server refuses it; then everything is as before.
        """
        self._waits.require_open()
        await self._adapters.load(name, version, folder)

    async def unload_adapter(self, name: str, version: str) -> None:
        """Has the server forget a version, after the answers that use it have ended.

        If it was live, new answers come from the base model from now on. One that the server does
        not have is no error. Raises ModelUnavailable when the server refuses.
        """
        self._waits.require_open()
        self._adapters.retire(name, version)
        await self._adapters.unload(name, version, self._open)

    async def _pieces(
        self, request: GenerationRequest, body: dict[str, Any], tally: Tally, may_shorten: bool
    ) -> AsyncGenerator[Piece, None]:
        await self._take_place()
        try:
            served, version = self._adapters.choose(request.adapter, request.model_version)
        except ModelUnavailable as error:
            self._places.release()
            yield tally.failed(error)
            return
        body["model"] = model = served or self.model
        tally.model_version = version
        answer = RemoteAnswer(
            self._client, self.options, self._adapters, self._waits, body, tally, may_shorten
        )
        self._open[model] += 1
        try:
            async with aclosing(answer.pieces()) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            self._places.release()
            self._open[model] -= 1
            self._adapters.left(model, self._open)

    async def _take_place(self) -> None:
        self._waiting += 1
        try:
            async with self._waits.until(None):
                await self._places.acquire()
        finally:
            self._waiting -= 1
