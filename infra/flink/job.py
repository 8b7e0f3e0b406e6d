"""What Flink is told: its configuration, and the checkpoint that a job goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from infra.flink.provision import FlinkDistribution
from streams.settings import KafkaSettings
from streams.windows.kafka_options import kafka_options
from streams.windows.render import fingerprint, render
from streams.windows.settings import AnalyticsSettings

# RocksDB's files while a local Flink runs; what is worth keeping of them is in the checkpoints.
WORK: Final = "work"


def make_order(
    flink: FlinkDistribution, kafka: KafkaSettings, settings: AnalyticsSettings, folder: Path
) -> dict[str, Any]:
    """What `streams/windows/flink_main.py` reads; `folder` is where checkpoints are kept.

    It holds Kafka's passwords.
    """
    own = folder / fingerprint(kafka.topic_prefix, settings)
    config = {"pipeline.name": job_name(kafka), **flink_config(flink, settings, own)}
    restored = newest_checkpoint(own)
    if restored is not None:
        config["execution.state-recovery.path"] = restored.as_uri()
    statements = render(kafka.topic_prefix, kafka_options(kafka), settings)
    return {"config": config, "statements": statements}


def job_name(kafka: KafkaSettings) -> str:
    """One job for each prefix of topics."""
    return kafka.group_name("windows")


def flink_config(
    flink: FlinkDistribution, settings: AnalyticsSettings, checkpoints: Path
) -> dict[str, str]:
    """Configuration of the job and, where it runs here, of the small Flink around it."""
    config = {
        "pipeline.jars": flink.connector.as_uri(),
        "pipeline.object-reuse": "true",
        # One task for each operator: to add up twice would only cost.
        "table.optimizer.agg-phase-strategy": "ONE_PHASE",
        "parallelism.default": "1",
        # Windows are a minute long: to look at the time more often only costs.
        "pipeline.auto-watermark-interval": "500 ms",
        "table.local-time-zone": "UTC",
        "table.exec.source.idle-timeout": f"{settings.idle_s} s",
        "table.exec.state.ttl": f"{settings.state_s} s",
        # A day of answers outgrows a small heap: there they took 1.8 kB each, and what was left
        # of the time went into collecting garbage.
        "state.backend.type": "rocksdb",
        "execution.checkpointing.incremental": "true",
        # Many small states share little memory: with the default of 64 MiB each would take 8 MiB
        # of it at its first record.
        "state.backend.rocksdb.writebuffer.size": "4 mb",
        "execution.checkpointing.interval": f"{settings.checkpoint_s} s",
        "execution.checkpointing.dir": checkpoints.as_uri(),
        "execution.checkpointing.num-retained": "2",
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.max-backoff": "15 s",
    }
    if settings.cluster is not None:
        host, _, port = settings.cluster.rpartition(":")
        return config | {"execution.target": "remote", "rest.address": host, "rest.port": port}
    return config | {
        "execution.target": "local",
        # Enough for one slot: buffers between tasks, those of windows, and RocksDB's.
        "taskmanager.numberOfTaskSlots": "1",
        "taskmanager.memory.network.min": "32 mb",
        "taskmanager.memory.network.max": "32 mb",
        "taskmanager.memory.managed.size": "160 mb",
        "io.tmp.dirs": str(checkpoints.parent / WORK),
    }


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of any run of the job in a folder, or None."""
    found = [file.parent for file in folder.glob("*/chk-*/_metadata")]
    return max(found, key=lambda path: (path / "_metadata").stat().st_mtime_ns, default=None)
