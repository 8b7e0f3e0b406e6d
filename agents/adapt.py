"""outcomes → policies, verdicts, analytics: what is learned from feedback beside the model.

One worker reads the one partition of `outcomes`, from the offset that its own database keeps beside
the state (`adapting`). For each batch:
1. judge and learn, in memory,
2. publish the verdicts, quarantined feedback whole, so that an operator can look at it,
3. commit state and offset in one transaction,
4. publish the new policy.
From time to time figures go to `analytics`.
Killed before 3, it does the batch again, to the same verdicts with the same ids. Killed after it,
it publishes the policy at its start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from agents.adapting.knowledge import Adapting
from agents.adapting.reports import SOURCE, policy_record, report_records
from agents.adapting.settings import AdaptSettings, acts, guards_learning
from agents.runtime.dead_letters import bury
from agents.runtime.standalone import run
from agents.settings import LearnedSettings, WorkerSettings
from schemas import codec, headers
from schemas.errors import EventInvalid
from schemas.events import Verdict
from schemas.topics import OUTCOMES, VERDICTS
from streams.follower import Follower
from streams.producer import Outgoing, Producer
from streams.records import Record
from streams.settings import KafkaSettings, load

T = TypeVar("T")

_PARTITION: Final = 0

log = logging.getLogger("headwater.adapt")


class Adapt:
    """The state of one adapt worker. Run one: a second learns the same, and nothing better."""

    def __init__(
        self, kafka: KafkaSettings, settings: AdaptSettings, learn: LearnedSettings
    ) -> None:
        self._kafka = kafka
        self._settings = settings
        self._acts = acts(settings, learn)
        self._keeps_examples = guards_learning(settings, learn)
        self._producer = Producer(kafka)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="headwater-adapt")
        self._outcomes: Follower | None = None
        self._adapting: Adapting | None = None
        self.ready = asyncio.Event()

    async def work(self) -> None:
        """Learn for ever."""
        adapting = await self._in_thread(
            lambda: Adapting(self._settings, self._acts, self._keeps_examples)
        )
        self._adapting = adapting
        await self._publish_policy(adapting)
        self._outcomes = Follower(self._kafka, OUTCOMES, {_PARTITION: adapting.next_offset})
        await self._outcomes.open()
        self.ready.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._report(adapting))
            while True:
                if records := await self._outcomes.batch():
                    await self._learn(adapting, records)

    async def close(self) -> None:
        """Leave the broker and close the database."""
        if self._outcomes is not None:
            await self._outcomes.close()
        if self._adapting is not None:
            await self._in_thread(self._adapting.close)
        self._thread.shutdown(wait=True, cancel_futures=True)
        await self._producer.close()

    async def _learn(self, adapting: Adapting, records: Sequence[Record]) -> None:
        # 1.
        judged, refused = await self._in_thread(_take, adapting, records)
        verdicts = [verdict for verdict, _ in judged]
        # 2.
        for record, error in refused:
            await bury(self._producer, record, "adapt", error)
        await asyncio.gather(*(self._producer.send(_outgoing(*pair)) for pair in judged))
        # 3.
        await self._in_thread(adapting.commit)
        # 4.
        if any(verdict.decision != "quarantined" for verdict in verdicts):
            await self._publish_policy(adapting)
        for verdict in verdicts:
            if verdict.decision == "quarantined":
                log.warning("quarantined %s: %s", verdict.outcome_id, "; ".join(verdict.reasons))

    async def _report(self, adapting: Adapting) -> None:
        """Figures at intervals, for ever, while there are new ones."""
        reported = adapting.next_offset
        while True:
            await asyncio.sleep(self._settings.report_interval_s)
            if adapting.next_offset > reported:
                reported = adapting.next_offset
                found = await self._in_thread(report_records, adapting)
                await asyncio.gather(*map(self._producer.send, found))

    async def _publish_policy(self, adapting: Adapting) -> None:
        if (policy := await self._in_thread(adapting.policy)) is not None:
            await self._producer.send(policy_record(policy))

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


def _take(
    adapting: Adapting, records: Sequence[Record]
) -> tuple[list[tuple[Verdict, Record]], list[tuple[Record, EventInvalid]]]:
    """The verdicts on a batch with what they are on, and what is no outcome."""
    verdicts, refused = [], []
    for record in records:
        try:
            outcome = codec.decode(OUTCOMES, record.value or b"")
        except EventInvalid as error:
            refused.append((record, error))
            continue
        if (verdict := adapting.add(outcome, record.offset)) is not None:
            verdicts.append((verdict, record))
    return verdicts, refused


def _outgoing(verdict: Verdict, record: Record) -> Outgoing:
    name = verdict.outcome_id
    trace = headers.child_traceparent(headers.header(record.headers, "traceparent"))
    made = headers.make_headers(VERDICTS, f"{name}/{verdict.decision}", SOURCE, trace)
    return Outgoing(VERDICTS, verdict.user, codec.checked(VERDICTS, verdict), made)


def main() -> None:
    """Run the adapt worker until it is told to stop."""
    kafka, worker = load(KafkaSettings), load(WorkerSettings)
    adapt = Adapt(kafka, load(AdaptSettings), load(LearnedSettings))
    run(worker, adapt.work, adapt.ready.wait, adapt.close)


if __name__ == "__main__":
    main()
