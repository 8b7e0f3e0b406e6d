"""Becomes the process that runs the windows: Flink's Python, which starts one JVM."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final, NoReturn

from agents.runtime.ready_file import touch_ready_file
from infra.flink.cluster import follow, job_runs, wait_for_cluster
from infra.flink.job import WORK, job_name, make_order
from infra.flink.provision import FlinkDistribution
from models.background import be_nice
from schemas.errors import SettingsInvalid
from streams import windows
from streams.settings import KafkaSettings
from streams.windows.settings import AnalyticsSettings

MAIN: Final = Path(windows.__file__).with_name("flink_main.py")
# Statistics give way to the language model where both want the cores.
NICENESS: Final = 10
LOG_SETTINGS: Final = """\
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = Console
appender.console.name = Console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd HH:mm:ss} %-5p %c{1} - %m%n
# It warns at every checkpoint that the sink's metrics have the same name again.
logger.metrics.name = org.apache.flink.metrics.MetricGroup
logger.metrics.level = ERROR
"""


def become_flink(
    flink: FlinkDistribution, kafka: KafkaSettings, settings: AnalyticsSettings, folder: Path
) -> NoReturn:
    """Replace this process by the one that runs the jobs; checkpoints are in `folder`."""
    if settings.cluster is not None:
        _wait_until_alone(settings.cluster, job_name(kafka))
    folder.mkdir(parents=True, exist_ok=True)
    if settings.cluster is None:
        _lock(folder)
    log_settings = folder / "log4j2.properties"
    log_settings.write_text(LOG_SETTINGS, "utf-8")
    # An unnamed file: the order holds passwords.
    with tempfile.TemporaryFile("w+") as order:
        json.dump(make_order(flink, kafka, settings, folder), order)
        order.seek(0)
        os.dup2(order.fileno(), 0)
    if settings.cluster is None:
        # What a killed Flink left behind.
        shutil.rmtree(folder / WORK, ignore_errors=True)
        (folder / WORK).mkdir()
        be_nice(NICENESS)
    env = os.environ | java_environment(flink, settings, log_settings)
    os.execve(flink.python, [str(flink.python), str(MAIN)], env)


def _wait_until_alone(cluster: str, name: str) -> None:
    """A job of ours that runs on the cluster goes on without whoever submitted it."""
    wait_for_cluster(cluster)
    if job_runs(cluster, name):
        touch_ready_file()
        follow(cluster, name)


def _lock(folder: Path) -> None:
    """Has the folder for as long as what this process becomes lives. Raises SettingsInvalid."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise SettingsInvalid(
            f"Other windows run with their files in {folder}.",
            "Stop them, or name another folder with HEADWATER_ANALYTICS_CHECKPOINTS.",
        ) from error
    os.set_inheritable(descriptor, True)


def java_environment(
    flink: FlinkDistribution, settings: AnalyticsSettings, log_settings: Path
) -> dict[str, str]:
    """What PyFlink and Flink's scripts read: where Java is, how large and how it logs."""
    return {
        "FLINK_HOME": str(flink.home),
        "JAVA_HOME": str(flink.java_home),
        "LOG4J_PROPERTIES": str(log_settings),
        "FLINK_LOG_DIR": str(log_settings.parent),
        # A small heap with the plain collector and the quick compiler, as Kafka has. That
        # compiler's 48 MiB for code would fill, and each time the whole heap be collected.
        "JVM_ARGS": f"-Xmx{settings.heap_mib}m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "
        "-XX:ReservedCodeCacheSize=128m -XX:+ExitOnOutOfMemoryError",
    }
