"""Which weights the engine serves for an adapter: its own version, with another adapter's added.

The `added` adapter (that of the documents) lies on every row besides the row's own. The engine has
one adapter a row, so the two become one when either changes; its version names both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import torch

from models.engine.protocol import BASE_VERSION, DEFAULT_ADAPTER, Engine
from models.learning.compose import compose_folders
from schemas import limits
from schemas.errors import DataInvalid, ModelUnavailable


@dataclass(frozen=True, slots=True)
class Part:
    """A version of one adapter; the base model has no folder."""

    version: str
    folder: Path | None


_NOTHING: Final = Part(BASE_VERSION, None)


class Composition:
    """Loads versions into an engine. `added` is empty where nothing is added to anything."""

    def __init__(self, engine: Engine, cache: Path, added: str, threads: Executor) -> None:
        self._engine = engine
        self._cache = cache
        self._added = added
        self._threads = threads
        self._parts: dict[str, Part] = {}
        self._served: dict[str, Part] = {}
        # Two adapters that change together must not miss each other.
        self._changing = asyncio.Lock()

    @property
    def folders(self) -> set[Path]:
        """Those of live versions."""
        parts = [*self._parts.values(), *self._served.values()]
        return {part.folder for part in parts if part.folder is not None}

    async def bring(
        self, adapter: str, version: str, folder: Path | None, wanted: Callable[[], bool]
    ) -> bool:
        """From now on `adapter` is served by `version`; False where that is not `wanted` any more.

        Raises as `Engine.load_adapter`; what was served before goes on then.
        """
        async with self._changing:
            if not wanted():
                return False
            parts = self._parts | {adapter: Part(version, folder)}
            others = {DEFAULT_ADAPTER, *parts} - {self._added}
            for name in sorted(others) if adapter == self._added else [adapter]:
                served = await self._together(
                    parts.get(name, _NOTHING), parts.get(self._added, _NOTHING)
                )
                await self._engine.load_adapter(name, served.version, served.folder)
                self._served[name] = served
            self._parts = parts
            return True

    async def _together(self, own: Part, added: Part) -> Part:
        if added.folder is None or own.folder is None:
            return own if added.folder is None else added
        version = f"{own.version}+{added.version}"
        if len(version) > limits.NAME_CHARS_MAX:
            raise ModelUnavailable(
                f"The name {version[:80]}… of two versions together has {len(version)} characters.",
                f"Give versions shorter names: {limits.NAME_CHARS_MAX} characters together.",
            )
        work = partial(_compose, own.folder, added.folder, self._cache)
        folder = await asyncio.get_running_loop().run_in_executor(self._threads, work)
        return Part(version, folder)


def _compose(own: Path, added: Path, cache: Path) -> Path:
    # A second pool of OpenMP threads would slow the engine down for good: see docs/LOG.md.
    torch.set_num_threads(1)
    try:
        return compose_folders(own, added, cache)
    except DataInvalid as error:
        raise ModelUnavailable(error.message, error.remedy) from error
