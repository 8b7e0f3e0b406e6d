"""Versions of adapters at a server that loads them while it runs: vLLM's endpoints for LoRA.

https://docs.vllm.ai/en/latest/features/lora/, under "Dynamically serving LoRA Adapters". The server
has to run with `--enable-lora` and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from pathlib import Path
from typing import Final

from models.engine.protocol import BASE_VERSION
from models.engine.remote.client import ServerClient
from models.engine.remote.faults import ServerFault
from schemas.errors import EventInvalid, ModelBusy, ModelUnavailable

# Of each adapter, the live one included, for rollbacks.
VERSIONS_KEPT: Final = 4

log = logging.getLogger("headwater.generate")


def served_name(name: str, version: str) -> str:
    """What the server calls a version: a model of its own, which never changes."""
    return f"{name}@{version}"


class RemoteAdapters:
    """Which versions the server has loaded for us, and which one of each adapter is live."""

    def __init__(self, client: ServerClient) -> None:
        self._client = client
        self._folders: dict[str, Path] = {}
        self._unused: dict[str, asyncio.Event] = {}
        # By adapter: its live version, and those that were live, the last of them last.
        self._live: dict[str, str] = {}
        self._used: dict[str, list[str]] = {}

    def live(self, name: str) -> str:
        """The version that new answers for an adapter come from."""
        return self._live.get(name, BASE_VERSION)

    async def load(self, name: str, version: str, folder: Path | None) -> None:
        """See `RemoteEngine.load_adapter`."""
        if version != BASE_VERSION:
            served = served_name(name, version)
            if served not in self._folders:
                if folder is None:
                    raise ModelUnavailable(f"{served} is not loaded.", "Name its folder.")
                await self._load(served, folder)
                self._folders[served] = folder
            used = self._used.setdefault(name, [])
            if version in used:
                used.remove(version)
            used.append(version)
        self._live[name] = version

    def outdated(self, name: str) -> list[str]:
        """Versions that were live too long ago to be kept, each told once."""
        used = self._used.get(name, [])
        self._used[name] = used[-VERSIONS_KEPT:]
        return used[:-VERSIONS_KEPT]

    def retire(self, name: str, version: str) -> None:
        """New answers come from the base model if this version was live."""
        if self.live(name) == version:
            self._live[name] = BASE_VERSION

    async def unload(self, name: str, version: str, open_answers: Counter[str]) -> None:
        """Unload a version that was retired, after the answers that use it have ended.

        One that went live again meanwhile stays.
        """
        served = served_name(name, version)
        while open_answers[served]:
            await self._unused.setdefault(served, asyncio.Event()).wait()
        if self.live(name) == version:
            return
        self._folders.pop(served, None)
        try:
            await self._client.post("unload_lora_adapter", {"lora_name": served})
        except (ServerFault, EventInvalid) as error:
            if not await self._is_served(served):
                return
            raise ModelUnavailable(
                f"The server did not unload {served}: {error.message}", error.remedy
            ) from error

    def left(self, served: str, open_answers: Counter[str]) -> None:
        """An answer from that version has ended."""
        if not open_answers[served] and served in self._unused:
            self._unused.pop(served).set()

    async def restore(self, served: str) -> bool:
        """Load a version again that the server has lost, as it does at a restart.

        False if it is none of ours. Raises ServerFault when the server refuses it now.
        """
        folder = self._folders.get(served)
        if folder is None:
            return False
        log.warning("the server has lost %s; loading it again", served)
        try:
            await self._load(served, folder)
        except ModelUnavailable as error:
            raise ServerFault(error.message, error.remedy, transient=False, down=True) from error
        return True

    async def _load(self, served: str, folder: Path) -> None:
        try:
            await self._client.post("load_lora_adapter", _to_load(served, folder))
        except (ServerFault, EventInvalid) as error:
            # Another replica of ours may have been first.
            if await self._is_served(served):
                return
            later = isinstance(error, ServerFault) and error.transient
            kind = ModelBusy if later else ModelUnavailable
            raise kind(
                f"The server did not load {served} from {folder}: {error.message}",
                "It needs the folder under the same path, vLLM with --enable-lora and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and --max-lora-rank at least the rank.",
            ) from error

    async def _is_served(self, served: str) -> bool:
        try:
            return any(card.id == served for card in await self._client.models())
        except (ServerFault, EventInvalid):
            return False


def _to_load(served: str, folder: Path) -> dict[str, str]:
    return {"lora_name": served, "lora_path": str(folder.absolute())}
