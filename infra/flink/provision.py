"""Makes Flink's own Python environment, and fetches the jar by which it reaches Kafka.

Flink wants older packages than ours: it cannot share our environment. Its JRE is ours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from infra.kafka_lock import PinnedJar, file_sha256
from infra.paths import cache_dir
from infra.provision import (
    OTHER_PROCESS_TIMEOUT_S,
    Progress,
    faulty_jars,
    fetch_jars,
    java_program,
)
from schemas.errors import ProvisioningFailed

REQUIREMENTS: Final = Path(__file__).parents[2] / "requirements" / "flink.txt"
CONNECTOR: Final = PinnedJar(
    "org.apache.flink",
    "flink-sql-connector-kafka",
    "5.0.0-2.2",
    "5605c691d11a501382c383fecba37a7a552467da5ab7ba904ef5d6f3d62c5616",
)
_INSTALL_TIMEOUT_S: Final = 1_800
_POLL_INTERVAL_S: Final = 0.5


@dataclass(frozen=True)
class FlinkDistribution:
    """A Flink that can be started: its Python, its home folder, the JRE and the connector."""

    python: Path
    home: Path
    java_home: Path
    connector: Path


def flink_dir() -> Path:
    """The folder in the cache for these very packages; it may not exist yet."""
    return cache_dir() / f"flink-{file_sha256(REQUIREMENTS)[:12]}"


def is_provisioned() -> bool:
    """Whether everything is there."""
    folder = flink_dir()
    return _complete(folder) and not faulty_jars([CONNECTOR], folder)


def provision_flink(progress: Progress = lambda _what, _share: None) -> FlinkDistribution:
    """Give a Flink, made first where it is missing: some minutes and 750 MB, once.

    Two processes may call this at once: one makes it, the other waits. Raises ProvisioningFailed.
    """
    folder = flink_dir()
    if not is_provisioned():
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(f"{folder}.lock", timeout=OTHER_PROCESS_TIMEOUT_S):
                if not _complete(folder):
                    _install(folder, progress)
                fetch_jars(faulty_jars([CONNECTOR], folder), folder, progress)
        except Timeout as error:
            raise ProvisioningFailed(
                f"Another process has been making Flink for {OTHER_PROCESS_TIMEOUT_S} s.",
                "See whether it is stuck, end it, and try again.",
            ) from error
    progress("Flink is ready", 1.0)
    (home,) = folder.glob("lib/python*/site-packages/pyflink")
    return FlinkDistribution(
        folder / "bin" / "python",
        home,
        java_program().parents[1],
        folder / CONNECTOR.file_name,
    )


def _complete(folder: Path) -> bool:
    return (folder / ".complete").exists()


def _install(folder: Path, progress: Progress) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        raise ProvisioningFailed("There is no uv to make Flink's environment with.", "`make venv`.")
    log = folder.with_name(folder.name + ".log")
    python = str(folder / "bin" / "python")
    install = ["pip", "install", "--python", python, "--compile-bytecode", "--require-hashes"]
    with log.open("wb") as output:
        _run([uv, "venv", "--python", sys.executable, str(folder)], output.fileno(), log)
        _run(
            [uv, *install, "-r", str(REQUIREMENTS)],
            output.fileno(),
            log,
            lambda: progress("Flink", _share_installed(folder)),
        )
    (folder / ".complete").touch()
    log.unlink()


def _run(
    command: list[str], output: int, log: Path, look: Callable[[], None] = lambda: None
) -> None:
    """Run a command to its end, looking at it meanwhile; raises ProvisioningFailed."""
    env = os.environ | {"UV_PYTHON_DOWNLOADS": "never"}
    deadline_s = time.monotonic() + _INSTALL_TIMEOUT_S
    with subprocess.Popen(command, stdout=output, stderr=output, env=env) as process:
        try:
            while process.poll() is None and time.monotonic() < deadline_s:
                look()
                time.sleep(_POLL_INTERVAL_S)
        finally:
            process.kill()
    if process.returncode != 0:
        raise ProvisioningFailed(
            f"Flink's environment could not be made: see {log}.",
            "Check the network and the free disk space (2 GiB), and try again; or set "
            "HEADWATER_ANALYTICS_ENABLED=false.",
        )


def _share_installed(folder: Path) -> float:
    wanted = REQUIREMENTS.read_text("utf-8").count("==")
    found = sum(1 for _ in folder.glob("lib/python*/site-packages/*.dist-info"))
    return min(0.95, found / wanted)
