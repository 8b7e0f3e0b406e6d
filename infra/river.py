"""The river on this machine: which processes run, in what order, under one supervisor."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from agents.gateway.settings import GatewaySettings
from agents.tracking.settings import TrackSettings
from infra.local_kafka import LocalKafka, remedy_for
from infra.part import Part
from infra.paths import LocalSettings
from infra.provision import KafkaDistribution
from streams.settings import load

ANSWERING: Final = ("ingest", "retrieve", "generate")
LEARNING: Final = ("join", "learn")
ADAPT: Final = "adapt"
AGENTS: Final = (*ANSWERING, *LEARNING, ADAPT)
GATEWAY: Final = "gateway"
# A setting of its own starts it (HEADWATER_STUDY_ENABLED).
STUDY: Final = "study"
WINDOWS: Final = "windows"
# Beside a SuperLink (`headwater edge serve`); not part of `headwater up`.
FEDERATE: Final = "federate"
MONITOR: Final = "monitor"
EVERYTHING: Final = (*AGENTS, GATEWAY, MONITOR)
# What a river that serves cannot be without; the others may be left down (law 3).
SERVING: Final = (*ANSWERING, GATEWAY)
# Beside them where it is installed and switched on; nobody waits for it.
TRACK: Final = "track"


@dataclass(frozen=True)
class River:
    """A local river: its parts and how clients reach it."""

    parts: list[Part]
    data_dir: Path
    bootstrap: str


def local_river(
    distribution: KafkaDistribution,
    data_dir: Path,
    port: int,
    controller_port: int,
    env: Mapping[str, str] | None = None,
    agents: tuple[str, ...] = AGENTS,
    windows: bool = False,
    needed: Collection[str] | None = None,
) -> River:
    """Kafka, its topics and one worker of each agent; `env` goes to the agents.

    `windows` adds the windowed statistics, whose Flink must be provisioned. The river goes on
    without agents that are not `needed` when they cannot run; by default all are.
    """
    settings = load(LocalSettings)
    kafka = LocalKafka(
        distribution, data_dir / "kafka", port, controller_port, heap_mib=settings.kafka_heap_mib
    )
    kafka.prepare()
    bootstrap = kafka.address
    shared = {
        "HEADWATER_KAFKA_BOOTSTRAP": bootstrap,
        "HEADWATER_JOIN_FOLDER": str(data_dir / "join"),
        "HEADWATER_JOIN_PSEUDONYM_KEY_FILE": str(data_dir / "pseudonym.key"),
        "HEADWATER_LEARN_FOLDER": str(data_dir / "learning"),
        "HEADWATER_STUDY_FOLDER": str(data_dir / "study"),
        "HEADWATER_ADAPT_FOLDER": str(data_dir / "adapt"),
        "HEADWATER_GATEWAY_KEYS_FILE": str(keys_file(data_dir)),
        "HEADWATER_GATEWAY_STREAM_KEY_FILE": str(data_dir / "gateway" / "stream.key"),
        "HEADWATER_TRACK_FOLDER": str(tracking_of(data_dir).root),
        **dict(env or {}),
    }
    workers = [
        *(agent_part(name, shared) for name in agents),
        *([windows_part(data_dir, shared)] if windows else []),
    ]
    parts = [
        Part("kafka", kafka.command(), ready=kafka.answers, remedy=remedy_for, grace_s=20.0),
        Part(
            "topics",
            _headwater("topics", "--create"),
            shared,
            after=("kafka",),
            restart=False,
        ),
        *(replace(part, needed=needed is None or part.name in needed) for part in workers),
    ]
    return River(parts, data_dir, bootstrap)


def keys_file(data_dir: Path) -> Path:
    """Where the API keys of a local river are: in its folder, unless the setting says otherwise."""
    settings = load(GatewaySettings)
    named = "keys_file" in settings.model_fields_set
    return settings.keys_file if named else data_dir / "gateway" / "keys.json"


def tracking_of(data_dir: Path) -> TrackSettings:
    """The settings of a local river's tracking, which is in its folder unless a setting says so."""
    settings = load(TrackSettings)
    named = "folder" in settings.model_fields_set
    return settings if named else settings.model_copy(update={"folder": data_dir / "tracking"})


def tracked(agents: tuple[str, ...]) -> tuple[str, ...]:
    """The agents, and the one that tracks them where it is installed and switched on."""
    return (*agents, TRACK) if load(TrackSettings).on else agents


def agent_part(name: str, env: Mapping[str, str], instance: str = "0") -> Part:
    """One worker of an agent. Static membership lets it come back without a rebalance."""
    own = {"HEADWATER_WORKER_INSTANCE_ID": f"{name}-{instance}", **_threads(name), **env}
    return Part(
        name,
        _headwater("agent", name),
        own,
        after=("topics",),
        ready_deadline_s=180.0,
        # Reading the log is all there is to do, and the message shows its end.
        remedy=_agent_remedy,
    )


def windows_part(data_dir: Path, env: Mapping[str, str]) -> Part:
    """The windowed statistics in one JVM. Nothing waits until they run."""
    own = {"HEADWATER_ANALYTICS_CHECKPOINTS": str(data_dir / WINDOWS), **env}
    return Part(
        WINDOWS,
        _headwater("analytics", "run"),
        own,
        ready=_at_once,
        after=("topics",),
        grace_s=2.0,
        remedy=_agent_remedy,
    )


async def _at_once() -> bool:
    return True


def _headwater(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "infra.cli", *arguments]


def _threads(name: str) -> dict[str, str]:
    """Embedders must not take the cores from the language model on a small machine."""
    if name == "generate":
        return {}
    if name in ("learn", ADAPT, STUDY, FEDERATE, TRACK):
        return {"OMP_NUM_THREADS": "1"}
    threads = max(1, (os.cpu_count() or 2) // 2)
    return {"HEADWATER_EMBEDDER_THREADS": str(threads)}


def _agent_remedy(log: str) -> str:
    known: list[tuple[str, str]] = [
        ("No module named", "Install everything with `make venv`."),
        ("No space left", "The disk is full: free some space."),
        ("MemoryError", "There is too little memory: close something, or name a smaller model."),
    ]
    return next((remedy for sign, remedy in known if sign in log), "`headwater doctor` may know.")
