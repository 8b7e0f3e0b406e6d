"""The embedder behind `/v1/embeddings`, loaded when the first texts come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from agents.settings import EmbedderSettings

if TYPE_CHECKING:
    from models.embedder import Embedder


class Vectors:
    """One thread, which has the model to itself."""

    def __init__(self, settings: EmbedderSettings) -> None:
        self._settings = settings
        self._embedder: Embedder | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="headwater-vectors")

    @property
    def name(self) -> str:
        """What requests call it by."""
        return self._settings.name

    async def of(self, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        """(n, dim) float32 vectors, and how many tokens the texts have. Raises ModelUnavailable."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._embed, texts)

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _embed(self, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        if self._embedder is None:
            # Imported late: it brings torch, which most gateways never need.
            from models.embedder import Embedder

            settings = self._settings
            self._embedder = Embedder(settings.name, settings.device, threads=settings.threads or 1)
        encodable = [text.encode("utf-8", "replace").decode() for text in texts]
        tokens = sum(len(found) for found in self._embedder.tokenizer.encode_batch(encodable))
        return self._embedder.embed(encodable), tokens
