"""model-updates → the engine: adapters go live, and what cannot be served is refused.

Every replica reads every record, without a group, and goes on serving what it has until the next
version is verified and loaded. A refused record becomes a dead letter once: besides, the replicas
share the topic as a group, and the one that has the partition buries what was refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from agents.generation.composition import Composition
from agents.generation.swaps import Lane, Swap, decode_swap
from agents.runtime.dead_letters import bury
from agents.runtime.intake import Intake, Taken
from agents.runtime.metrics import UpdateMetrics
from models.artifacts import fetch, prune
from models.background import yield_to_others
from models.engine.protocol import BASE_VERSION, Engine
from schemas.errors import EventInvalid
from schemas.topics import MODEL_UPDATES
from streams.follower import Follower
from streams.producer import Producer
from streams.records import Record
from streams.settings import KafkaSettings

# Adapters fetched together.
_FETCHES_MAX: Final = 4
_REMEMBERED_MAX: Final = 10_000

T = TypeVar("T")

log = logging.getLogger("headwater.generate")


class Updates:
    """Keeps the engine's adapters equal to `model-updates`.

    `ready` is set once those that are live there are live here, or could not be had within `wait_s`
    seconds; they are tried on then. `intake` reads the partitions that this replica answers for.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        producer: Producer,
        engine: Engine,
        cache: Path,
        wait_s: float,
        added: str = "",
    ) -> None:
        """`added` names the adapter that is added to every other one; empty: none is."""
        self._producer = producer
        self._cache = cache
        self._wait_s = wait_s
        self._follower = Follower(kafka, MODEL_UPDATES, "earliest")
        self._fetching = ThreadPoolExecutor(_FETCHES_MAX, "headwater-artifacts", yield_to_others)
        self._lanes: dict[str, Lane] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._composition = Composition(engine, cache, added, self._fetching)
        # The sha256 of each version: it never changes.
        self._weights: dict[str, str] = {}
        # Places of records that are not judged yet, and what was refused, for `bury_refused`.
        self._open: set[tuple[int, int]] = set()
        self._refused: dict[tuple[int, int], Exception] = {}
        # By partition, the offset of the next record; replaced at each verdict.
        self._next: dict[int, int] = {}
        self._judged = asyncio.Event()
        self.metrics = UpdateMetrics()
        self.intake = Intake()
        self.ready = asyncio.Event()

    async def follow(self) -> None:
        """Keep the engine, which must have been started, equal to the topic, for ever."""
        await self._follower.open()
        async with asyncio.TaskGroup() as lanes:
            try:
                async with asyncio.timeout(self._wait_s):
                    # The whole topic first: only what is newest is worth loading.
                    async for record in self._follower.until_caught_up():
                        self._take(record)
                    self._run_lanes(lanes)
                    await asyncio.gather(*(lane.idle.wait() for lane in self._lanes.values()))
            except TimeoutError:
                log.warning("not all adapters are live after %g s; trying on", self._wait_s)
            self.ready.set()
            while True:
                self._run_lanes(lanes)
                for record in await self._follower.batch():
                    self._take(record)

    async def bury_refused(self) -> None:
        """Of the partitions that this replica answers for, for ever."""
        async with asyncio.TaskGroup() as waiting:
            async for (taken,) in self.intake.batches(1):
                # One that is not settled yet keeps no other from being buried.
                waiting.create_task(self._bury(taken))

    async def close(self) -> None:
        """Stop reading and fetching."""
        self._fetching.shutdown(wait=False, cancel_futures=True)
        await self._follower.close()

    def _run_lanes(self, lanes: asyncio.TaskGroup) -> None:
        for adapter in self._lanes.keys() - self._running.keys():
            self._running[adapter] = lanes.create_task(self._lanes[adapter].run())

    def _take(self, record: Record) -> None:
        """Hands a record to its adapter's lane, or refuses it at once."""
        place = record.partition, record.offset
        self._next[record.partition] = record.offset + 1
        try:
            swap = decode_swap(record)
            self._bind(swap)
        except EventInvalid as error:
            log.warning("model update at %d/%d is refused: %s", *place, error)
            self._refuse(place, error)
            return
        self._open.add(place)
        lane = self._lanes.setdefault(swap.adapter, Lane(self._bring, self._settled))
        lane.offer(swap)

    def _bind(self, swap: Swap) -> None:
        """Raises EventInvalid for a version that is known with other weights."""
        if swap.version == BASE_VERSION:
            return
        known = self._weights.setdefault(swap.version, swap.sha256)
        if known != swap.sha256:
            raise EventInvalid(
                f"The version {swap.version!r} has weights of another sha256, {known}.",
                "A version never changes: publish other weights under another name.",
            )
        if len(self._weights) > _REMEMBERED_MAX:
            del self._weights[next(iter(self._weights))]

    async def _bring(self, swap: Swap) -> bool:
        """Load and swap; False when something newer is wanted by then."""
        copy = None
        if swap.version != BASE_VERSION:
            copy = await self._in_thread(
                partial(fetch, swap.uri, swap.sha256, self._cache, swap.config_sha256)
            )
        lane = self._lanes[swap.adapter]
        if not await self._composition.bring(
            swap.adapter, swap.version, copy, lambda: lane.wanted is swap
        ):
            return False
        log.info("%s serves %s", swap.adapter, swap.version)
        # What was published before this worker began did not wait for it.
        since_ms = swap.record.timestamp_ms if self.ready.is_set() else None
        self.metrics.applied(since_ms)
        if copy is not None:
            await self._in_thread(partial(prune, self._cache, self._composition.folders))
        return True

    def _settled(self, swap: Swap, error: Exception | None) -> None:
        place = swap.record.partition, swap.record.offset
        self._open.discard(place)
        if error is not None:
            self._refuse(place, error)
        else:
            self._tell()

    def _refuse(self, place: tuple[int, int], error: Exception) -> None:
        self.metrics.refused.inc()
        self._refused[place] = error
        if len(self._refused) > _REMEMBERED_MAX:
            del self._refused[next(iter(self._refused))]
        self._tell()

    def _tell(self) -> None:
        judged, self._judged = self._judged, asyncio.Event()
        judged.set()

    async def _bury(self, taken: Taken) -> None:
        error = await self._verdict(taken.record)
        # The partition may have gone to another replica meanwhile, which buries it then.
        if error is not None and self.intake.reads(taken.record.partition):
            await bury(self._producer, taken.record, "generate", error)
        await taken.done()

    async def _verdict(self, record: Record) -> Exception | None:
        """Why a record was refused, once that is settled; told once, for it may be read again."""
        place = record.partition, record.offset
        while self._next.get(record.partition, 0) <= record.offset or place in self._open:
            await self._judged.wait()
        return self._refused.pop(place, None)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._fetching, work)
