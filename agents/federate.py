"""federated-rounds → model-updates: a round of devices for each record that asks for one.

The topic says what is to do, read from its beginning at every start; the ledger says what is done.
For each round that is asked for and has not ended, one after the other:
1. wait until enough devices are online, say `started`, and have Flower run the round,
2. enter the devices' sum into the ledger, with noise; the gate decides whether it is released,
3. publish what the ledger has released and not published,
4. say `finished`, or `failed` with the reason, for which no privacy was spent.
Killed before 2, the round begins again, `attempts_max` times in all; killed after it, 3 and 4
follow.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import torch

from agents.learning.adapter_learning import model_name
from agents.learning.live_version import LiveUpdate, read_live
from agents.learning.releases import begun_record, ended_record, round_record, update_record
from agents.rounds.adapter_rounds import Federation
from agents.rounds.asked_round import asked_record
from agents.rounds.flower_round import (
    ADAPTER_FILE,
    RoundResult,
    clear_up,
    enough_devices,
    round_folder,
    run_round,
)
from agents.rounds.queue import Asked, RoundQueue
from agents.rounds.records import ended_in, failed, finished, started
from agents.rounds.releases import unpublished
from agents.rounds.settings import FederateSettings
from agents.rounds.superlink import open_superlink
from agents.runtime.dead_letters import bury
from agents.runtime.standalone import run
from agents.settings import GenerateSettings, LearnSettings, WorkerSettings
from models.background import be_nice
from models.learning.gate import LiveVersion
from models.privacy.ledger import Round
from schemas import codec
from schemas.clock import now_ms
from schemas.errors import (
    BudgetSpent,
    DataInvalid,
    EventInvalid,
    FederationUnreachable,
    QuorumMissed,
    WorkerFailed,
)
from schemas.events import FederatedRound
from schemas.topics import FEDERATED_ROUNDS
from streams.follower import Follower
from streams.producer import Producer
from streams.records import Record
from streams.settings import KafkaSettings, load

T = TypeVar("T")
# What ends a round, and not the agent.
_ROUND_FAILURES: Final = (QuorumMissed, WorkerFailed, FederationUnreachable, DataInvalid)

log = logging.getLogger("headwater.federate")


class Federate:
    """The state of the federate worker. Run one for an adapter."""

    def __init__(
        self, kafka: KafkaSettings, settings: FederateSettings, learn: LearnSettings, model: str
    ) -> None:
        self._settings = settings
        self._learn = learn
        self._model = model
        self._producer = Producer(kafka)
        self._live = LiveUpdate(kafka, learn.adapter)
        self._records = Follower(kafka, FEDERATED_ROUNDS, "earliest")
        self._queue = RoundQueue(learn.adapter)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="headwater-federate")
        self._federation: Federation | None = None
        self.ready = asyncio.Event()

    async def work(self) -> None:
        """Do rounds for ever."""
        await self._live.open()
        federation = await self._in_thread(
            lambda: Federation(self._settings, self._learn, self._model, self._read_live)
        )
        self._federation = federation
        await self._records.open()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._live.follow())
            await asyncio.to_thread(clear_up, self._settings)
            await self._producer.send(begun_record(federation.opening, now_ms()))
            await self._publish(federation)
            async for record in self._records.until_caught_up():
                await self._take(record)
            tasks.create_task(self._ask_regularly())
            self.ready.set()
            while True:
                while asked := self._queue.next():
                    await self._do(federation, asked)
                for record in await self._records.batch():
                    await self._take(record)

    async def close(self) -> None:
        """Leave the broker and close the ledger."""
        await self._records.close()
        if self._federation is not None:
            await self._in_thread(self._federation.close)
        self._thread.shutdown(wait=True, cancel_futures=True)
        await self._live.close()
        await self._producer.close()

    async def _take(self, record: Record) -> None:
        try:
            event: FederatedRound = codec.decode(FEDERATED_ROUNDS, record.value or b"")
        except EventInvalid as error:
            await bury(self._producer, record, "federate", error)
            return
        self._queue.take(event, record.partition, record.offset)

    async def _do(self, federation: Federation, asked: Asked) -> None:
        """One round to its end, which is told."""
        begun_s = time.monotonic()
        try:
            found = ended_in(await self._in_thread(federation.rounds_done), asked)
            result = None
            if found is None:
                result, found = await self._attempt(federation, asked)
            await self._publish(federation)
            await self._producer.send(round_record(federation.opening, found))
            told = finished(asked, federation.opening, found, result, time.monotonic() - begun_s)
            if federation.spent:
                await self._producer.send(ended_record(federation.opening, found))
        except (*_ROUND_FAILURES, BudgetSpent) as error:
            told = failed(asked, error, time.monotonic() - begun_s)
            log.warning("round %s failed: %s", asked.event.round_id, error)
        await self._producer.send(told)
        self._queue.end(asked.event.round_id)

    async def _attempt(self, federation: Federation, asked: Asked) -> tuple[RoundResult, Round]:
        """Has devices do the round, and enters its sum."""
        if asked.attempts >= self._settings.attempts_max:
            raise WorkerFailed(
                f"The round was begun {asked.attempts} times and never ended.",
                "See the logs of the federate agent and the SuperLink.",
            )
        if federation.spent:
            raise BudgetSpent(
                f"All {federation.rounds.number} rounds of the privacy plan are done.",
                "Begin an adapter with a new name (HEADWATER_LEARN_ADAPTER).",
            )
        folder = round_folder(self._settings, f"{asked.event.round_id}/{asked.attempts}")
        link = await asyncio.to_thread(open_superlink, self._settings)
        try:
            nodes = await enough_devices(link, federation.choose, self._settings)
            parent = await self._in_thread(federation.begin, folder / ADAPTER_FILE)
            await self._producer.send(started(asked, len(nodes)))
            log.info("round %s: %d devices, from %s", asked.event.round_id, len(nodes), parent)
            result = await run_round(
                link, self._settings, federation.shape, asked.event.round_id, folder, nodes
            )
            return result, await self._enter(federation, asked, result, nodes)
        finally:
            await asyncio.to_thread(link.close)
            # It holds the sum without noise.
            shutil.rmtree(folder, ignore_errors=True)

    async def _enter(
        self, federation: Federation, asked: Asked, result: RoundResult, nodes: dict[int, str]
    ) -> Round:
        digests = {nodes[int(node)]: sha for node, sha in result.outcome.digests.items()}
        offsets = {f"{FEDERATED_ROUNDS.name}/{asked.partition}": asked.offset + 1}
        found = await self._in_thread(federation.finish, result.total, digests, offsets)
        log.info("round %s: %s, epsilon %s", asked.event.round_id, found.evaluation, found.epsilon)
        return found

    async def _publish(self, federation: Federation) -> None:
        artifacts = self._learn.artifacts
        for update in await self._in_thread(unpublished, federation, artifacts):
            await self._producer.send(update_record(update))
            # Before the topic brings it back: the next round begins with this one.
            self._live.update = update
            await self._in_thread(
                federation.store.mark_published, federation.name, update.model_version
            )
            log.info("released %s", update.model_version)

    async def _ask_regularly(self) -> None:
        """The schedule; a round that waits is not asked for again."""
        while self._settings.every_s is not None:
            await asyncio.sleep(self._settings.every_s)
            if self._queue.next() is None:
                asked = asked_record(self._learn.adapter, uuid.uuid4().hex, "asked by the schedule")
                await self._producer.send(asked)

    def _read_live(self) -> LiveVersion | None:
        return read_live(self._live.update, self._learn.cache_dir / "gate-federated")

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


def main() -> None:
    """Run the federate worker until it is told to stop."""
    # While a round runs it would log three looks at it a second.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    kafka, worker, learn = load(KafkaSettings), load(WorkerSettings), load(LearnSettings)
    be_nice(learn.nice)
    torch.set_num_threads(learn.threads)
    model = model_name(learn, load(GenerateSettings))
    federate = Federate(kafka, load(FederateSettings), learn, model)
    run(worker, federate.work, federate.ready.wait, federate.close)


if __name__ == "__main__":
    main()
