"""Running one Faust app as a process: connection, logs, readiness, an orderly end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import faust
import mode.loop
from faust.types.auth import SASLMechanism

from agents.runtime.ready_file import HEARTBEAT_S, touch_ready_file
from agents.settings import WorkerSettings
from schemas.errors import HeadwaterError
from schemas.topics import Topic
from streams.records import RawHeaders, Record
from streams.settings import KafkaSettings

log = logging.getLogger("headwater")


def make_app(
    name: str, kafka: KafkaSettings, settings: WorkerSettings, **options: Any
) -> faust.App:
    """A Faust app that reads our topics as raw bytes and declares none.

    `options` are Faust's own, for an agent that keeps a table.
    """
    return faust.App(
        kafka.group_name(name),
        broker=[f"kafka://{address.strip()}" for address in kafka.bootstrap.split(",")],
        broker_credentials=_credentials(kafka),
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 3,
        broker_commit_interval=settings.commit_interval_s,
        broker_max_poll_records=500,
        consumer_group_instance_id=settings.instance_id,
        consumer_auto_offset_reset="earliest",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        stream_wait_empty=False,
        **{
            "store": "memory://",
            # Faust makes this folder although nothing goes in: not in one that may be read-only.
            "datadir": Path(tempfile.gettempdir()) / f"headwater-{os.getuid()}-{name}",
            **options,
        },
    )


def raw_topic(app: faust.App, kafka: KafkaSettings, *topics: Topic) -> faust.TopicT:
    """Topics of ours without Faust's codecs: decoding is ours, so that nothing is skipped."""
    return app.topic(
        *(kafka.topic_name(topic) for topic in topics),
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        internal=True,
    )


def as_record(event: faust.EventT) -> Record:
    """The raw record behind a Faust event."""
    message = event.message
    return Record(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        key=message.key,
        value=message.value,
        headers=_pairs(message.headers),
        timestamp_ms=max(round(message.timestamp * 1000), 0),
    )


def _pairs(headers: Any) -> RawHeaders:
    """Faust gives headers as a mapping or as pairs."""
    return list(headers.items() if isinstance(headers, Mapping) else headers or [])


def run(
    app: faust.App,
    settings: WorkerSettings,
    work: Sequence[Callable[[], Awaitable[None]]],
    ready: Callable[[], Awaitable[object]],
    close: Callable[[], Awaitable[None]],
) -> None:
    """Run until SIGINT or SIGTERM, or until one of the tasks in `work` fails.

    `ready` returns once the agent can do its work; `close` is awaited at the end.
    """
    if sys.platform != "win32":
        # A record's way through Faust is shorter by half a millisecond: see docs/LOG.md.
        mode.loop.use("uvloop")
    for task in work:
        app.task(_ending_the_process(task))

    @app.task
    async def announce() -> None:
        await ready()
        _leave_alone_what_stays()
        log.info("ready")
        while not app.should_stop:
            touch_ready_file()
            await asyncio.sleep(HEARTBEAT_S)

    async def shutdown(*_: Any, **__: Any) -> None:
        await close()

    signal: Any = app.on_before_shutdown
    signal.connect(shutdown, weak=False)
    worker = faust.Worker(app, loglevel=settings.log_level, redirect_stdouts=False)
    worker.execute_from_commandline()


def follow_assignment(
    app: faust.App, topic: faust.TopicT, owns: Callable[[set[int]], None]
) -> None:
    """Call `owns` with the partitions of a topic that this worker has, after each rebalance."""

    async def assigned(_app: Any, assigned: Any, **_: Any) -> None:
        owns({place.partition for place in assigned if place.topic in topic.topics})

    signal: Any = app.on_partitions_assigned
    signal.connect(assigned, weak=False)


def _ending_the_process(
    task: Callable[[], Awaitable[None]],
) -> Callable[[], Awaitable[None]]:
    """A failed task ends its worker: the supervisor starts it anew from the committed offsets."""

    async def guarded() -> None:
        try:
            await task()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            cause = _single(error)
            # An error of ours says all there is to know; a foreign one is for a programmer.
            foreign = None if isinstance(cause, HeadwaterError) else cause
            log.critical("the worker cannot go on: %s", cause, exc_info=foreign)
            os._exit(1)

    guarded.__name__ = task.__name__
    return guarded


def _single(error: BaseException) -> BaseException:
    """What a task group wraps, where it is one error."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _leave_alone_what_stays() -> None:
    """Libraries and models hold a million objects: to look through them for garbage stops all
    threads for 0.4 s at a time, a running answer's among them."""
    gc.collect()
    gc.freeze()


def _credentials(kafka: KafkaSettings) -> faust.auth.Credentials | None:
    context = kafka.ssl_context() if kafka.uses_tls else None
    if kafka.uses_sasl:
        assert kafka.password is not None
        return faust.SASLCredentials(
            username=kafka.username,
            password=kafka.password.get_secret_value(),
            mechanism=SASLMechanism(kafka.sasl_mechanism),
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None
