"""The command line: help for everything, and errors as two lines instead of tracebacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from infra import cli

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 0.3


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command and group."""
    yield path
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))


ALL = list(commands(typer.main.get_command(cli.cli)))


@pytest.fixture
def headwater(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Headwater:
    """Give the command in this process, with no broker anywhere."""
    monkeypatch.setenv("HEADWATER_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("HEADWATER_KAFKA_CONNECT_TIMEOUT_S", str(TIMEOUT_S))
    return Headwater(monkeypatch, capsys)


class Headwater:
    """Runs `infra.cli.app`; gives the exit status and what was printed and complained."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["headwater", *words])
        with pytest.raises(SystemExit) as ended:
            cli.app()
        printed = self._capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return int(ended.value.code or 0), printed.out, printed.err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--json-schema", "nowhere.json"], "cannot be read"),
        (["--json-schema", str(ROOT / "README.md")], "malformed"),
        (["--json-object", "--stop", "x"], "stop cannot be used"),
        (["--n", "8", "--max-tokens", "2000"], "n · max_tokens"),
    ],
)
def test_sampling_options_that_cannot_be_are_named(
    headwater: Headwater, words: list[str], complaint: str
) -> None:
    status, _, complained = headwater("ask", "why?", *words)
    assert status == 1
    assert complaint in complained


@pytest.mark.parametrize("words", ALL, ids=lambda words: " ".join(words) or "headwater")
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    ran = CliRunner().invoke(cli.cli, [*words, "--help"])
    assert ran.exit_code == 0, ran.output
    assert "Usage:" in ran.output


def test_the_commands_are_those_of_the_readme() -> None:
    first_words = {words[0] for words in ALL if words}
    assert {"up", "demo", "publish", "ask", "watch", "feedback", "topics"} <= first_words
    assert {"doctor", "bench", "agent", "dead-letters", "eval", "contracts"} <= first_words


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["wach"], "watch"),
        (["publsh", "README.md"], "publish"),
        (["ask", "why", "--topk", "3"], "--top-k"),
        (["ask"], "QUESTION"),
        (["ask", "why", "--top-k", "many"], "--top-k"),
        (["ask", "why", "--mode", "psychic"], "fused, dense or keyword"),
        (["watch", "tokens", "--since", "noon"], "earliest or latest"),
        (["dead-letters", "replay"], "--all"),
    ],
)
def test_a_typo_ends_with_a_hint(headwater: Headwater, words: list[str], hint: str) -> None:
    status, _, complaint = headwater(*words)
    assert status == 2
    assert hint in complaint


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["watch", "promts"], "Did you mean prompts?"),
        (["contracts", "show", "token"], "Did you mean tokens?"),
        (["watch", "zzz"], "The topics are documents, passages"),
        (["analytics", "tail", "--name", "qualty"], "Did you mean quality?"),
        (["watch", "tokens", "--resume", "junk"], "subscription.position"),
        (["agent", "ingst"], "ingest, retrieve, generate"),
        (["bench", "sleep"], "publish, freshness, first-token"),
        (["publish", "absent.md"], "absent.md is no file"),
        (["ask", "why", "--filter", "red"], "--filter NAME=VALUE"),
        (["contracts", "check", "--against", "absent"], "headwater contracts export"),
        (["eval", "retrieval", "absent.json"], "absent.json is no SQuAD file"),
    ],
    ids=lambda item: " ".join(item) if isinstance(item, list) else "",
)
def test_what_cannot_be_done_is_said_with_a_remedy(
    headwater: Headwater, monkeypatch: pytest.MonkeyPatch, words: list[str], hint: str
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # `agent` sets it where it is not set.
    status, _, complaint = headwater(*words)
    assert status == 1
    assert complaint.startswith("error: ")
    assert hint in complaint


@pytest.mark.parametrize(
    "words",
    [
        ["topics"],
        ["topics", "--create"],
        ["publish", "README.md"],
        ["publish", "README.md", "--wait"],
        ["publish", "--delete", "a"],
        ["ask", "why?"],
        ["feedback", "prompt-1", "--rating", "1"],
        ["watch", "tokens"],
        ["watch", "tokens", "--name", "me"],
        ["dead-letters", "list"],
        ["dead-letters", "replay", "--all"],
        ["learn", "pause"],
        ["learn", "resume"],
        ["agent", "federate"],
        ["agent", "monitor"],
    ],
    ids=" ".join,
)
def test_a_missing_broker_is_said_soon_with_a_remedy(
    headwater: Headwater, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(ROOT)
    started = time.monotonic()
    status, printed, complaint = headwater(*words)
    assert time.monotonic() - started < 10 * TIMEOUT_S
    assert (status, printed) == (1, "")
    assert complaint.startswith("error: No Kafka broker answers at 127.0.0.1:1")
    assert "Start one with `headwater up`, or set HEADWATER_KAFKA_BOOTSTRAP." in complaint


def test_wrong_settings_are_named(headwater: Headwater, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_KAFKA_SECURITY_PROTOCOL", "foo")
    status, _, complaint = headwater("topics")
    assert status == 1
    assert "HEADWATER_KAFKA_SECURITY_PROTOCOL" in complaint


def test_showing_a_contract_prints_its_schema(headwater: Headwater) -> None:
    status, printed, _ = headwater("contracts", "show", "prompts")
    assert status == 0
    assert json.loads(printed)["title"] == "prompts"
    assert json.loads(headwater("contracts", "show", "asyncapi")[1])["asyncapi"] == "3.0.0"


def test_without_words_the_help_is_shown(headwater: Headwater) -> None:
    status, printed, complaint = headwater()
    assert status == 2
    assert "Usage:" in printed + complaint


def test_the_real_process_ends_with_status_and_remedy() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "infra.cli", "watch", "promts"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "Did you mean prompts?" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "words", [["contracts", "show", "asyncapi"], ["--help"], ["contracts", "check"]]
)
def test_a_reader_that_goes_away_gets_no_complaint(words: list[str]) -> None:
    """As in `headwater --help | head -c 1`; the status is what shells show for SIGPIPE."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed_pipe:
        ran = subprocess.run(
            [sys.executable, "-m", "infra.cli", *words],
            cwd=ROOT,
            stdout=closed_pipe,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert (ran.returncode, ran.stderr) == (141, "")


def test_a_misspelt_setting_is_warned_of(
    headwater: Headwater, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_KAFKA_BOOTSTRP", "elsewhere:9092")
    status, printed, complaint = headwater("contracts", "check")
    assert status == 0
    assert "hold" in printed
    assert complaint == (
        "warning: HEADWATER_KAFKA_BOOTSTRP is no setting and has no effect; "
        "did you mean HEADWATER_KAFKA_BOOTSTRAP?\n"
    )


def test_the_command_line_loads_no_package_of_the_agents() -> None:
    """`headwater doctor` must run where they are missing."""
    script = "import infra.cli, json, sys; print(json.dumps([*sys.modules]))"
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    imported = {name.split(".")[0] for name in json.loads(ran.stdout)}
    heavy = {"torch", "transformers", "tokenizers", "faust", "faiss", "bs4", "numpy", "tantivy"}
    assert imported & heavy == set()


def test_what_the_machine_refuses_is_no_traceback(headwater: Headwater, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    status, _, complaint = headwater(
        "contracts", "export", "--folder", str(tmp_path / "file" / "x")
    )
    assert status == 1
    assert complaint.startswith(f"error: {tmp_path}/file/x: Not a directory.\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full device")
def test_a_full_disk_is_said() -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "infra.cli", "contracts", "show", "prompts"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: No space left on device.\nThe disk is full")


@pytest.mark.parametrize(
    ("words", "status", "hint"),
    [
        (["-h"], 0, "Usage:"),
        (["ask", " "], 2, "Ask something"),
        (["publish", "x" * 5_000], 1, "File name too long"),
        (["publish", "--delete", "a", "--wait"], 2, "nothing else"),
    ],
    ids=["-h", "ask", "long name", "delete"],
)
def test_a_bad_user_is_understood(
    headwater: Headwater, words: list[str], status: int, hint: str
) -> None:
    ended, printed, complaint = headwater(*words)
    assert ended == status
    assert hint in printed + complaint


def test_the_document_at_fault_is_named_before_anything_is_sent(
    headwater: Headwater, tmp_path: Path
) -> None:
    good, large = tmp_path / "good.txt", tmp_path / "large.txt"
    good.write_text("Water is wet.")
    large.write_text("w" * 400_001)
    status, printed, complaint = headwater("publish", str(good), str(large))
    assert (status, printed) == (1, "")
    # Long names are cut.
    assert complaint.startswith(f"error: Not a valid Document ({str(large)[:60]}")
