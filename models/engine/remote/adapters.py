"""Versions of adapters at a server that loads them while it runs: vLLM's endpoints for LoRA.

https://docs.vllm.ai/en/latest/features/lora/, under "Dynamically serving LoRA Adapters". The server
has to run with `--enable-lora` and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from pathlib import Path

from models.engine.protocol import BASE_VERSION, DEFAULT_ADAPTER
from models.engine.remote.client import ServerClient
from models.engine.remote.faults import ServerFault
from schemas.errors import EventInvalid, ModelUnavailable

log = logging.getLogger("headwater.generate")


def served_name(name: str, version: str) -> str:
    """What the server calls a version: a model of its own, which never changes."""
    return f"{name}@{version}"


class RemoteAdapters:
    """Which versions the server has loaded for us, and which of them are live."""

    def __init__(self, client: ServerClient) -> None:
        self._client = client
        # Also of those that open answers still use.
        self._folders: dict[str, Path] = {}
        self._unused: dict[str, asyncio.Event] = {}
        # What new answers may come from: adapter and version.
        self._offered: list[tuple[str, str]] = []
        self._live: dict[str, str] = {}

    def live(self, name: str = DEFAULT_ADAPTER) -> str:
        """The version that new answers for that adapter come from."""
        return self._live.get(name, BASE_VERSION)

    def choose(self, name: str, version: str | None) -> tuple[str | None, str]:
        """What a new answer comes from, as the server calls it (None is the base), and its version.

        That is `version`, whichever adapter it is of, or else the adapter's live one. Raises
        ModelUnavailable for one that is not loaded.
        """
        wanted = version or self.live(name)
        if wanted == BASE_VERSION:
            return None, wanted
        names = [name, *(other for other, _ in self._offered)]
        found = [served_name(n, wanted) for n in names if (n, wanted) in self._offered]
        if not found:
            raise ModelUnavailable(
                f"Adapter version {wanted!r} is not loaded at the server.",
                "Ask for the live version, or load it first.",
            )
        return found[0], wanted

    async def load(self, name: str, version: str, folder: Path) -> None:
        """See `RemoteEngine.load_adapter`."""
        served = served_name(name, version)
        if served not in self._folders:
            await self._load(served, folder)
            self._folders[served] = folder
        if (name, version) not in self._offered:
            self._offered.append((name, version))
        self._live[name] = version

    def retire(self, name: str, version: str) -> None:
        """No new answer comes from it; if it was live, they come from the base model."""
        if (name, version) in self._offered:
            self._offered.remove((name, version))
        if self.live(name) == version:
            del self._live[name]

    async def unload(self, name: str, version: str, open_answers: Counter[str]) -> None:
        """Unload a version that was retired, after the answers that use it have ended."""
        served = served_name(name, version)
        if open_answers[served]:
            self._unused[served] = asyncio.Event()
            await self._unused[served].wait()
            del self._unused[served]
        if (name, version) in self._offered:
            # Loaded anew meanwhile.
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
            self._unused[served].set()

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
            raise ModelUnavailable(
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
