"""One Apache Kafka node on this machine: KRaft, no ZooKeeper, no installed Java.

`python -m infra.local_kafka --port 19092 --data-dir DIR` runs one in the foreground.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

from infra.kafka_properties import HOST, LOG_SETTINGS, Security, server_properties
from infra.log_files import said
from infra.part import Part
from infra.paths import LocalSettings
from infra.provision import KafkaDistribution, provision
from schemas.errors import BrokerUnreachable, HeadwaterError, WorkerFailed
from streams.settings import load

FORMAT_TIMEOUT_S = 60
REQUEST_TIMEOUT_S = 2.0
POLL_INTERVAL_S = 0.1

# What Kafka logs on its way down, and what its reader can do about it.
_REMEDIES = {
    "Address already in use": "Another process has the port: choose one with HEADWATER_KAFKA_PORT "
    "and HEADWATER_KAFKA_CONTROLLER_PORT, or end that process.",
    "No space left on device": "The disk is full: free some space, or move HEADWATER_DATA_DIR.",
    "File too large": "This user may not write files of that size: see `ulimit -f`.",
    "Failed to acquire lock": "Another Kafka uses this data folder: stop it first.",
    "OutOfMemoryError": "Give it more memory with HEADWATER_KAFKA_HEAP_MIB.",
    "Permission denied": "Make the data folder writable for this user.",
}
_REMEDY_OTHERWISE = (
    "If the data folder is damaged, delete it (its topics are lost) and start again."
)


@dataclass(frozen=True)
class LocalKafka:
    """A node that keeps its topics in `data_dir`; started again on it, it has them still."""

    distribution: KafkaDistribution
    data_dir: Path
    port: int
    controller_port: int
    security: Security | None = None
    heap_mib: int = 384

    @property
    def address(self) -> str:
        """Where clients reach it in the clear: host and port."""
        return f"{HOST}:{self.port}"

    def prepare(self) -> None:
        """Write the settings and, once, format the storage; raises WorkerFailed."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        settings = server_properties(
            self._topics_dir, self.port, self.controller_port, self.security
        )
        self._settings_file.write_text(settings, "utf-8")
        self._log_settings_file.write_text(LOG_SETTINGS, "utf-8")
        if not (self._topics_dir / "meta.properties").exists():
            self._format()

    def command(self) -> list[str]:
        """Give the command that runs the node in the foreground, once it is prepared."""
        return [*self._java(self.heap_mib), "kafka.Kafka", str(self._settings_file)]

    def part(self) -> Part:
        """Describe the prepared node to the supervisor."""
        return Part("kafka", self.command(), ready=self.answers, remedy=remedy_for)

    async def answers(self) -> bool:
        """Tell whether the node serves clients."""
        try:
            # A closed port is the usual answer at first, and librdkafka would log each one.
            _, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return False
        writer.close()
        return await asyncio.to_thread(self._lists_itself)

    async def wait_ready(self, deadline_s: float) -> None:
        """Return once the node serves clients; raises BrokerUnreachable after `deadline_s`."""
        try:
            async with asyncio.timeout(deadline_s):
                # Only the broker knows when: there is nothing here to be told by.
                while not await self.answers():  # noqa: ASYNC110
                    await asyncio.sleep(POLL_INTERVAL_S)
        except TimeoutError as error:
            raise BrokerUnreachable(
                f"Kafka did not answer at {self.address} within {deadline_s:g} s.",
                "Look at its log for the reason.",
            ) from error

    def _lists_itself(self) -> bool:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        try:
            return bool(admin.list_topics(timeout=REQUEST_TIMEOUT_S).brokers)
        except KafkaException:
            return False

    def _format(self) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # With `=`, for one id in 64 begins with a dash and would be taken for an option.
        arguments = [f"--cluster-id={cluster_id}", "--config", str(self._settings_file)]
        for user, password in (self.security.passwords if self.security else {}).items():
            arguments += ["--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]"]
        tool = [*self._java(heap_mib=64), "kafka.tools.StorageTool", "format", "--standalone"]
        done = subprocess.run(
            [*tool, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=FORMAT_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            last_line = (said(done.stdout) or ["no output"])[-1]
            raise WorkerFailed(
                f"Kafka's storage in {self._topics_dir} could not be formatted: {last_line}.",
                remedy_for(done.stdout),
            )

    def _java(self, heap_mib: int) -> list[str]:
        class_path = os.pathsep.join(map(str, self.distribution.class_path))
        # A small heap with the plain collector and the quick compiler: 1 s to start, 330 MB.
        return [
            str(self.distribution.java),
            f"-Xmx{heap_mib}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            # With the quick compiler's 48 MiB the whole heap was collected for room, amid answers.
            "-XX:ReservedCodeCacheSize=128m",
            "-XX:+ExitOnOutOfMemoryError",
            f"-Dlog4j2.configurationFile={self._log_settings_file}",
            "-cp",
            class_path,
        ]

    @property
    def _topics_dir(self) -> Path:
        return self.data_dir / "topics"

    @property
    def _settings_file(self) -> Path:
        return self.data_dir / "server.properties"

    @property
    def _log_settings_file(self) -> Path:
        return self.data_dir / "log4j2.properties"


def remedy_for(log: str) -> str:
    """Say what helps against the failure that a Kafka log ends with."""
    return next((remedy for sign, remedy in _REMEDIES.items() if sign in log), _REMEDY_OTHERWISE)


def main() -> None:
    """Become a Kafka node in the foreground."""
    settings = load(LocalSettings)
    parser = argparse.ArgumentParser(prog="python -m infra.local_kafka", description=__doc__)
    parser.add_argument("--port", type=int, default=settings.kafka_port)
    parser.add_argument("--controller-port", type=int, help="the port after --port by default")
    parser.add_argument("--data-dir", type=Path, default=settings.data_dir / "kafka")
    chosen = parser.parse_args()
    kafka = LocalKafka(
        provision(),
        chosen.data_dir.absolute(),
        chosen.port,
        chosen.controller_port or chosen.port + 1,
        heap_mib=settings.kafka_heap_mib,
    )
    kafka.prepare()
    command = kafka.command()
    os.execv(command[0], command)


if __name__ == "__main__":
    try:
        main()
    except HeadwaterError as problem:
        sys.exit(str(problem))
