"""What `headwater edge join` refuses before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from agents.edge.keys import make_key
from infra.cli import cli
from infra.federation import KEY_FILE


def refusal(*words: str) -> str:
    ran = CliRunner().invoke(cli, ["edge", "join", *words])
    assert ran.exit_code != 0
    return f"{ran.exception} {ran.output}"


def test_a_device_without_a_key_is_told_how_to_make_one(tmp_path: Path) -> None:
    said = refusal("--superlink", "127.0.0.1:9443", "--data", str(tmp_path))
    assert "no key" in said and "headwater edge key" in said


def test_off_this_machine_nothing_leaves_without_encryption(tmp_path: Path) -> None:
    make_key(tmp_path / KEY_FILE)
    said = refusal("--superlink", "rounds.example.org:9443", "--data", str(tmp_path))
    assert "must be encrypted" in said and "--ca" in said


def test_a_limit_that_means_nothing_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The option becomes this variable, for the trainer; it is put back here.
    monkeypatch.setenv("HEADWATER_EDGE_CPU_SHARE", "1")
    make_key(tmp_path / KEY_FILE)
    reach = ["--superlink", "127.0.0.1:9443", "--data", str(tmp_path)]
    assert "less than or equal to 1" in refusal(*reach, "--cpu-share", "2")
