"""The pinned jars of the local Kafka: `infra/kafka.lock`, read, checked and rewritten."""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import ProvisioningFailed

if TYPE_CHECKING:
    from jgo.maven import MavenContext

LOCK_FILE = Path(__file__).with_name("kafka.lock")
BROKER = ("org.apache.kafka", "kafka_2.13")
RELEASE = r"4\.3\.\d+"
# Kafka's published dependencies have no SLF4J binding, without which it logs nothing at all.
# The binding must be of the same version as the log4j-core that Kafka asks for.
LOG_BINDING = ("org.apache.logging.log4j", "log4j-slf4j-impl")
LOG_CORE = "log4j-core"


@dataclass(frozen=True)
class PinnedJar:
    """One jar by its Maven coordinates, with the SHA-256 (hexadecimal) that it must have."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"

    def matches(self, path: Path) -> bool:
        """Tell whether the file at `path` exists and is this very jar."""
        return path.is_file() and file_sha256(path) == self.sha256


def file_sha256(path: Path) -> str:
    """Hash a file; gives 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_lock(path: Path = LOCK_FILE) -> list[PinnedJar]:
    """Read the pinned jars; the broker's own comes first.

    Raises ProvisioningFailed when the file is missing or malformed.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
        pins = [_parse(line) for line in lines if line and not line.startswith("#")]
        if (pins[0].group, pins[0].artifact) != BROKER:
            raise ValueError(f"its first jar is not {BROKER[1]}")
    except (OSError, ValueError, IndexError) as error:
        raise ProvisioningFailed(
            f"{path.name} cannot be read: {error}.",
            "Restore it from version control, or rewrite it: python -m infra.provision --lock",
        ) from error
    return pins


def _parse(line: str) -> PinnedJar:
    coordinates, sha256 = line.split()
    group, artifact, version = coordinates.split(":")
    return PinnedJar(group, artifact, version, sha256)


def write_lock(path: Path = LOCK_FILE) -> list[PinnedJar]:
    """Pin the newest patch of this line of Kafka, with all that it needs at run time.

    Downloads every jar afresh. Raises whatever the resolver raises.
    """
    from jgo.maven import MavenContext

    with tempfile.TemporaryDirectory() as folder:
        context = MavenContext(repo_cache=Path(folder), local_repos=[])
        pins = []
        for group, artifact, version in _newest_coordinates(context):
            jar = context.project(group, artifact).at_version(version).artifact().resolve()
            pins.append(PinnedJar(group, artifact, version, file_sha256(jar)))
    header = "# Written by: python -m infra.provision --lock\n# group:artifact:version sha256\n"
    lines = [f"{pin.group}:{pin.artifact}:{pin.version} {pin.sha256}\n" for pin in pins]
    path.write_text(header + "".join(lines), "utf-8")
    return pins


def _newest_coordinates(context: MavenContext) -> list[tuple[str, str, str]]:
    """Resolve (group, artifact, version) of the broker and of its run-time dependencies."""
    import jgo

    project = context.project(*BROKER)
    project.update()
    versions = [found.version for found in project.versions()]
    patches = [version for version in versions if re.fullmatch(RELEASE, version)]
    newest = max(patches, key=lambda version: int(version.rpartition(".")[2]))
    artifacts = jgo.resolve(":".join((*BROKER, newest)))
    found = [(jar.groupId, jar.artifactId, jar.version) for jar in artifacts]
    log_version = next(version for _, artifact, version in found if artifact == LOG_CORE)
    return [found[0], *sorted([*found[1:], (*LOG_BINDING, log_version)])]
