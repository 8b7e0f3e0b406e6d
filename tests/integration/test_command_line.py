"""The command line as people use it: with pipes, with Ctrl-C, and with no agents running."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headwater import SyncClient
from schemas.topics import PROMPTS, Topic
from streams.records import Record
from streams.settings import KafkaSettings
from streams.subscription import Subscription

pytestmark = pytest.mark.integration

COMMAND = [sys.executable, "-m", "infra.cli"]
WAIT_S_MAX = 90


def environment(kafka: KafkaSettings) -> dict[str, str]:
    return {
        **os.environ,
        "HEADWATER_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "HEADWATER_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
    }


@contextmanager
def started(kafka: KafkaSettings, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, *words],
        env=environment(kafka),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever starts the tests in the background has them ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_watch_ends_with_the_reader_of_its_pipe(kafka: KafkaSettings) -> None:
    """As in `headwater watch documents | head -1`, with no second record ever to come."""
    with SyncClient(kafka) as client:
        client.publish_document("Water is wet.", document_id="water")
    with started(kafka, "watch", "documents", "--since", "earliest", "--json") as watching:
        assert watching.stdout is not None and watching.stderr is not None
        assert json.loads(watching.stdout.readline())["key"] == "water"
        watching.stdout.close()
        assert watching.wait(WAIT_S_MAX) == 128 + signal.SIGPIPE
        assert watching.stderr.read() == ""
        watching.stdout = None


@pytest.mark.parametrize("as_json", [(), ("--json",)], ids=["text", "json"])
def test_ask_says_soon_who_is_missing_and_ctrl_c_cancels_the_prompt(
    kafka: KafkaSettings, as_json: tuple[str, ...]
) -> None:
    asked = time.monotonic()
    with started(kafka, "ask", "Is anybody there?", *as_json) as asking:
        assert asking.stderr is not None
        line = asking.stderr.readline()
        assert line == "waiting: no retrieve and no generate worker has joined the river\n"
        assert time.monotonic() - asked < 15
        asking.send_signal(signal.SIGINT)
        printed, complaint = asking.communicate(timeout=WAIT_S_MAX)
        assert asking.returncode == 130
        assert printed == ""
        assert complaint.startswith("\ncancelled prompt-")
        assert "Traceback" not in complaint
    # The prompt and its tombstone.
    records = asyncio.run(all_of(kafka, PROMPTS))
    assert [record.value is None for record in records] == [False, True]
    assert {record.key_text for record in records} == {complaint.split()[1]}


async def all_of(kafka: KafkaSettings, topic: Topic) -> list[Record]:
    async with Subscription(kafka, topic, since="earliest") as subscription:
        return [record async for record in subscription.present()]


def test_publishing_an_empty_document_waits_for_nothing(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    empty, page = tmp_path / "empty.txt", tmp_path / "page.html"
    empty.write_text(" \n")
    page.write_text("<html><script>let a = 1</script></html>")
    for flags, said in ((), f"{empty} is empty: there is nothing"), (("--json",), "null"):
        ran = subprocess.run(
            [*COMMAND, "publish", str(empty), str(page), "--wait", *flags],
            env=environment(kafka),
            capture_output=True,
            text=True,
            timeout=WAIT_S_MAX,
            check=True,
        )
        assert ran.stdout.count(said) == 2 if flags else said in ran.stdout
        assert ran.stderr == ""


def test_publishing_says_soon_who_is_missing(kafka: KafkaSettings, tmp_path: Path) -> None:
    document = tmp_path / "a.txt"
    document.write_text("Water is wet.")
    with started(kafka, "publish", str(document), "--wait") as publishing:
        assert publishing.stderr is not None
        line = publishing.stderr.readline()
        assert line == "waiting: no ingest and no retrieve worker has joined the river\n"
        publishing.send_signal(signal.SIGINT)
        printed, complaint = publishing.communicate(timeout=WAIT_S_MAX)
        assert (publishing.returncode, complaint.strip()) == (130, "")
        assert printed == f"published {document}\n"
