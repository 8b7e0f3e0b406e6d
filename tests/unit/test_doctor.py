"""The doctor, on this machine as it is and with things taken away from it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import doctor
from infra.health import HEARTBEAT_AGE_MAX_S, problem_with
from infra.kafka_lock import read_lock
from infra.paths import cache_dir, user_cache_dir


@pytest.fixture
def taken_port() -> Iterator[int]:
    """Give a port at which something listens that is no Kafka."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def find(name: str) -> doctor.Finding:
    return next(finding for finding in doctor.diagnose() if finding.name == name)


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, taken_port: int) -> None:
    monkeypatch.setenv("HEADWATER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HEADWATER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HEADWATER_KAFKA_PORT", str(taken_port))
    monkeypatch.setenv("HEADWATER_KAFKA_BOOTSTRAP", "127.0.0.1:9")
    monkeypatch.setattr(doctor, "BROKER_TIMEOUT_S", 0.5)


def test_what_this_environment_has_is_found() -> None:
    findings = {finding.name: finding for finding in doctor.diagnose()}
    for name in ("python", "extra cli", "extra local", "extra agents", "java", "embedder"):
        assert findings[name].ok, findings[name]


def test_every_problem_comes_with_a_remedy_unless_it_only_informs() -> None:
    problems = [finding for finding in doctor.diagnose() if not finding.ok and finding.needed]
    assert problems
    assert all(finding.remedy for finding in problems)


def test_an_empty_cache_lacks_every_jar() -> None:
    finding = find("kafka jars")
    assert not finding.ok
    assert finding.detail.startswith(f"0 of {len(read_lock())} verified")
    assert "infra.provision" in finding.remedy


def test_a_port_that_is_taken_is_named(taken_port: int) -> None:
    finding = find("port")
    assert not finding.ok
    assert str(taken_port) in finding.detail


def test_a_missing_broker_is_said_but_not_needed() -> None:
    finding = find("broker")
    assert not finding.ok
    assert not finding.needed


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor._MODULES, "local", ("jgo", "no_such_module"))
    finding = find("extra local")
    assert not finding.ok
    assert finding.detail == "missing: no_such_module"


def test_a_full_disk_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DISK_FREE_BYTES_MIN", 2**60)
    assert not find("disk").ok


@pytest.mark.parametrize(
    ("age_s", "healthy"), [(0, True), (HEARTBEAT_AGE_MAX_S + 1, False)], ids=["fresh", "silent"]
)
def test_an_agent_is_healthy_while_its_heart_beats(
    tmp_path: Path, age_s: float, healthy: bool
) -> None:
    ready_file = tmp_path / "ready"
    ready_file.touch()
    os.utime(ready_file, (1000, 1000))
    assert (problem_with(ready_file, now_s=1000 + age_s) is None) == healthy


def test_an_agent_without_a_ready_file_is_not_ready(tmp_path: Path) -> None:
    assert problem_with(tmp_path / "absent", now_s=0) == "not ready yet"


def test_the_cache_follows_the_xdg_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/tmp/mine")
    assert user_cache_dir() == Path("/var/tmp/mine/headwater")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert user_cache_dir() == Path.home() / ".cache" / "headwater"
    monkeypatch.setenv("HEADWATER_CACHE_DIR", "~/elsewhere")
    assert cache_dir() == Path.home() / "elsewhere"
