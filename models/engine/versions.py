"""Which adapter versions are loaded, which is live, and who still uses which.

The event loop loads and retires; the engine's thread asks for the live version when a request
starts and tells when it ends. A request keeps its version, so an old one stays in memory until the
last request that uses it has ended.
"""

from __future__ import annotations

import threading
from collections import Counter
from heapq import heappop, heappush

from models.background import Breathe
from models.engine.arrange import Adapter
from models.engine.low_rank import BASE, Stacks
from models.engine.protocol import BASE_VERSION
from schemas.errors import ModelBusy, ModelUnavailable


class Versions:
    """Slots of a `Stacks` by version name. Every method may be called from any thread."""

    def __init__(self, stacks: Stacks) -> None:
        self._stacks = stacks
        self._lock = threading.Lock()
        self._slots: dict[str, int] = {BASE_VERSION: BASE}
        # A heap: the lowest come first, since a pass multiplies with all slots up to the last.
        self._free = list(range(stacks.slots))
        self._live: dict[str, str] = {}
        self._users: Counter[str] = Counter()
        # Loaded for requests that name them, without being live.
        self._kept: set[str] = set()

    def live(self, adapter: str) -> str:
        """The version that new requests for `adapter` start on."""
        with self._lock:
            return self._live.get(adapter, BASE_VERSION)

    def loaded(self) -> list[str]:
        """Every version whose weights are in memory."""
        with self._lock:
            return [version for version in self._slots if version != BASE_VERSION]

    def keep(self, version: str) -> bool:
        """Whether a version is in memory; if so it stays there as after `load`."""
        with self._lock:
            if version in self._slots:
                self._kept.add(version)
            return version in self._slots

    def load(self, version: str, adapter: Adapter, breathe: Breathe = lambda: None) -> None:
        """Puts weights into memory, until they were live and are not any more, or `unload`.

        One at a time; for `breathe` see `Stacks.put`. Raises ModelBusy when every slot is in use.
        """
        with self._lock:
            if version in self._slots:
                return
            if not self._free:
                raise ModelBusy(
                    f"All {self._stacks.slots} adapter slots are in use.",
                    "Wait until requests on older versions end, or raise adapters_max.",
                )
            slot = heappop(self._free)
        # Outside the lock: no row uses this slot yet, and the engine's thread must not wait.
        self._stacks.put(slot, adapter, breathe)
        with self._lock:
            self._slots[version] = slot
            self._kept.add(version)

    def go_live(self, adapter: str, version: str) -> None:
        """From now on new requests for `adapter` start on `version`, which must be loaded."""
        with self._lock:
            if version not in self._slots:
                raise _unknown(version)
            before = self._live.get(adapter, BASE_VERSION)
            self._live[adapter] = version
            self._kept.discard(version)
            self._retire(before)

    def unload(self, adapter: str, version: str) -> None:
        """Frees a version, now or when its last request ends; the base model replaces it."""
        with self._lock:
            if self._live.get(adapter) == version:
                self._live[adapter] = BASE_VERSION
            self._kept.discard(version)
            self._retire(version)

    def start(self, adapter: str, version: str | None) -> str:
        """The version that a request runs on: the wanted one, or the live one. Pair with `end`.

        Raises ModelUnavailable for one that is not loaded.
        """
        with self._lock:
            chosen = version or self._live.get(adapter, BASE_VERSION)
            if chosen not in self._slots:
                raise _unknown(chosen)
            self._users[chosen] += 1
            return chosen

    def end(self, version: str) -> None:
        """A request on `version` has ended."""
        with self._lock:
            self._users[version] -= 1
            self._retire(version)

    def slot(self, version: str) -> int:
        """Where the weights of a version that is in use are."""
        return self._slots[version]

    def _retire(self, version: str) -> None:
        wanted = version in self._kept or version in self._live.values()
        if wanted or self._users[version] > 0 or version not in self._slots:
            return
        if version == BASE_VERSION:
            return
        del self._users[version]
        heappush(self._free, self._slots.pop(version))


def _unknown(version: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"Adapter version {version!r} is not loaded.", "Ask for the live version, or load it first."
    )
