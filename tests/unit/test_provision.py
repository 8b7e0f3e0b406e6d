"""Provisioning, from a small repository of made-up jars that a local HTTP server offers."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.kafka_lock import read_lock
from infra.provision import provision
from schemas.errors import ProvisioningFailed

JARS = {
    "org.apache.kafka:kafka_2.13:4.3.9": b"the broker",
    "org.example:helper:1.0": b"what the broker needs" * 1000,
}


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and notes each request's path in the server's `requested`."""

    def log_message(self, *_arguments: object) -> None:
        self.server.requested.append(self.path)  # type: ignore[attr-defined]


def path_in_repository(coordinates: str) -> Path:
    group, artifact, version = coordinates.split(":")
    return Path(group.replace(".", "/"), artifact, version, f"{artifact}-{version}.jar")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Give the folder that the server offers, with every jar in it."""
    for coordinates, content in JARS.items():
        path = tmp_path / "repository" / path_in_repository(coordinates)
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    return tmp_path / "repository"


@pytest.fixture
def requested(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Make jgo fetch from the local server; give the list of what it asked for."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(repository)))
    server.requested = []  # type: ignore[attr-defined]
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("jgo.maven._core.DEFAULT_REMOTE_REPOS", {"central": address})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.requested  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pin the made-up jars, and keep them in a cache of their own."""
    monkeypatch.setenv("HEADWATER_CACHE_DIR", str(tmp_path / "cache"))
    pins = [f"{name} {hashlib.sha256(content).hexdigest()}\n" for name, content in JARS.items()]
    file = tmp_path / "kafka.lock"
    file.write_text("# a comment\n" + "".join(pins), "utf-8")
    return file


def test_jars_are_fetched_once_and_verified(lock: Path, requested: list[str]) -> None:
    reported: list[tuple[str, float]] = []
    found = provision(lambda what, share: reported.append((what, share)), lock)
    assert found.version == "4.3.9"
    assert found.java.is_file()
    assert [jar.read_bytes() for jar in found.class_path] == list(JARS.values())
    assert [share for _, share in reported] == [0.5, 1.0, 1.0]
    requested.clear()
    assert provision(lock=lock) == found
    assert requested == []


def test_a_truncated_jar_is_fetched_again(lock: Path, requested: list[str]) -> None:
    broken = provision(lock=lock).class_path[1]
    broken.write_bytes(broken.read_bytes()[:100])
    requested.clear()
    provision(lock=lock)
    assert broken.read_bytes() == JARS["org.example:helper:1.0"]
    assert not any("kafka" in path for path in requested)


def test_a_jar_that_is_not_the_pinned_one_never_reaches_the_class_path(
    lock: Path, requested: list[str], repository: Path, tmp_path: Path
) -> None:
    (repository / path_in_repository("org.example:helper:1.0")).write_bytes(b"something else")
    with pytest.raises(ProvisioningFailed, match=r"helper-1\.0\.jar .*checksum"):
        provision(lock=lock)
    assert not list((tmp_path / "cache").rglob("helper*.jar"))


def test_two_at_once_fetch_each_jar_once(lock: Path, requested: list[str]) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(provision, lock=lock) for _ in range(2))
        assert first.result() == second.result()
    fetched = [path for path in requested if path.endswith(".jar")]
    assert len(fetched) == len(set(fetched)) == len(JARS)


def test_without_a_network_the_error_says_what_to_do(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing listens on the discard port.
    monkeypatch.setattr("jgo.maven._core.DEFAULT_REMOTE_REPOS", {"central": "http://127.0.0.1:9"})
    with pytest.raises(ProvisioningFailed) as caught:
        provision(lock=lock)
    assert "Check the network" in caught.value.remedy


def test_the_committed_pins_are_complete() -> None:
    pins = read_lock()
    assert pins[0].version.startswith("4.3.")
    assert all(len(bytes.fromhex(pin.sha256)) == 32 for pin in pins)
    assert len({pin.file_name for pin in pins}) == len(pins)


@pytest.mark.parametrize("text", ["", "org.example:helper:1.0 00", "kafka_2.13 00"])
def test_a_damaged_lock_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "kafka.lock").write_text(text, "utf-8")
    with pytest.raises(ProvisioningFailed, match=r"kafka\.lock cannot be read"):
        read_lock(tmp_path / "kafka.lock")
