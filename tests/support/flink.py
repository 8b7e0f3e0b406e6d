"""Flink in tests: the windows as a part, a cluster of two processes, and what they have said."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Consumer
from window_oracle import Key, Statistics

from infra.flink.provision import provision_flink
from infra.flink.run import java_environment
from infra.part import Part
from infra.ports import free_ports
from infra.river import windows_part
from schemas import codec
from schemas.events import DOCUMENT_FRESHNESS, FEEDBACK_FRESHNESS, Statistic
from schemas.topics import ANALYTICS
from streams.settings import KafkaSettings
from streams.windows.settings import AnalyticsSettings

# What the agents measure: input of the windows, not their output.
_MEASURED = (DOCUMENT_FRESHNESS, FEEDBACK_FRESHNESS)


def as_environment(settings: AnalyticsSettings) -> dict[str, str]:
    """The variables that make these settings."""
    values = settings.model_dump(exclude_defaults=True)
    return {f"HEADWATER_ANALYTICS_{name.upper()}": str(value) for name, value in values.items()}


def windows(kafka: KafkaSettings, settings: AnalyticsSettings, folder: Path) -> Part:
    """The process that runs or submits the windows, on topics that exist."""
    provision_flink()
    env = {
        "HEADWATER_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "HEADWATER_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
        **as_environment(settings),
    }
    made = windows_part(folder, env)
    return Part(made.name, made.command, made.env, ready_deadline_s=180.0, grace_s=2.0)


def cluster_parts(folder: Path) -> tuple[str, list[Part]]:
    """Where its REST is, and a job manager and a task manager of the wheel's Flink."""
    flink = provision_flink()
    rest, rpc = free_ports(2)
    conf = folder / "conf"
    conf.mkdir(parents=True)
    options = {
        "jobmanager.rpc.address": "127.0.0.1",
        "jobmanager.bind-host": "127.0.0.1",
        "jobmanager.rpc.port": rpc,
        "jobmanager.memory.process.size": "900m",
        "rest.address": "127.0.0.1",
        "rest.bind-address": "127.0.0.1",
        "rest.port": rest,
        "taskmanager.host": "127.0.0.1",
        "taskmanager.bind-host": "127.0.0.1",
        "taskmanager.memory.process.size": "1200m",
        # A dead task manager is noticed soon.
        "heartbeat.interval": "1000",
        "heartbeat.timeout": "5000",
        "env.java.opts.all": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
    }
    own = (flink.home / "conf" / "config.yaml").read_text("utf-8").splitlines()
    # What opens the JDK to Flink stands there alone.
    opens = next(line.split(": ", 1)[1] for line in own if "--add-opens" in line)
    options["env.java.default-opts.all"] = opens
    text = "".join(f"{name}: {value}\n" for name, value in options.items())
    (conf / "config.yaml").write_text(text, "utf-8")
    for file in (flink.home / "conf").glob("log4j*"):
        (conf / file.name).write_bytes(file.read_bytes())
    env = java_environment(flink, AnalyticsSettings(), conf / "log4j-console.properties")
    env = {**env, "FLINK_CONF_DIR": str(conf), "JVM_ARGS": ""}
    script = str(flink.home / "bin")
    manager = Part(
        "jobmanager", ["bash", f"{script}/jobmanager.sh", "start-foreground"], env, ready=_ready
    )
    worker = Part(
        "taskmanager", ["bash", f"{script}/taskmanager.sh", "start-foreground"], env, ready=_ready
    )
    return f"127.0.0.1:{rest}", [manager, worker]


async def _ready() -> bool:
    """The windows wait for them."""
    return True


class Heard:
    """Follows `analytics` as a read-committed consumer; a window that comes twice is counted."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self.statistics: Statistics = {}
        self.repeated: list[Key] = []

    def until(self, enough: Callable[[Statistics], bool], deadline_s: float) -> Statistics:
        """Listen until it is enough, or time is over: the caller says what is missing."""
        ends_s = time.monotonic() + deadline_s
        while time.monotonic() < ends_s and not enough(self.statistics):
            for message in self._consumer.consume(1_000, timeout=0.5):
                assert message.error() is None, message.error()
                self._take(codec.decode(ANALYTICS, message.value() or b""))
        return self.statistics

    def _take(self, statistic: Statistic) -> None:
        if statistic.name in _MEASURED:
            return
        labels = frozenset(statistic.labels.items())
        key = (statistic.name, labels, statistic.window_start_ms, statistic.window_end_ms)
        if key in self.statistics:
            self.repeated.append(key)
        self.statistics[key] = statistic.values


@contextmanager
def hearing(kafka: KafkaSettings) -> Iterator[Heard]:
    """Hear all statistics of a river from its beginning."""
    config = kafka.client_config() | {
        "group.id": kafka.group_name("heard"),
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
    }
    consumer = Consumer(config)
    consumer.subscribe([kafka.topic_name(ANALYTICS)])
    try:
        yield Heard(consumer)
    finally:
        consumer.close()


def differences(found: Statistics, wanted: Statistics) -> list[str]:
    """What is missing, too much, or of other values than 1e-9 allows; for a person to read."""
    said = [f"missing {key}" for key in wanted.keys() - found.keys()]
    said += [f"too much {key}" for key in found.keys() - wanted.keys()]
    for key in wanted.keys() & found.keys():
        ours, theirs = found[key], wanted[key]
        for name in ours.keys() | theirs.keys():
            a, b = ours.get(name), theirs.get(name)
            if a is None or b is None or abs(a - b) > 1e-9 * max(1.0, abs(b)):
                said.append(f"{key} {name}: {a} instead of {b}")
    return sorted(said)
