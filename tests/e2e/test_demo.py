"""The commands that a newcomer types, with the real language model."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.tracking import MlflowClient
from mlflow_servers import artifact, mlflow_at

from agents.tracking.settings import TrackSettings
from infra.demo.learning import COHORT_SIZE, HELD_OUT
from infra.demo.run import QUESTIONS
from models.learning.adapter_layout import WEIGHTS_FILE
from models.weights import packaged_gguf
from schemas.errors import ModelUnavailable
from schemas.topics import TOPICS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

COMMAND = [sys.executable, "-m", "infra.cli", "demo"]
START_S_MAX = 120


@pytest.fixture(autouse=True)
def weights() -> None:
    try:
        packaged_gguf()
    except ModelUnavailable as error:
        pytest.skip(str(error))


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "HEADWATER_DATA_DIR": str(folder)}


def demo(folder: Path, *options: str, timeout_s: float) -> dict[str, Any]:
    """The summary of a demonstration that ended by itself."""
    done = subprocess.run(
        [*COMMAND, "--once", *options],
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # It ends by naming the page, and what serves it.
    assert "/ui/" in done.stderr
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


def test_the_demo_ends_by_itself_with_grounded_answers_and_a_summary(tmp_path: Path) -> None:
    summary = demo(tmp_path, "--no-learning", timeout_s=280)
    records = summary["records"]
    assert set(records) == {topic.name for topic in TOPICS}
    assert records["documents"] == summary["documents"] > 500
    assert records["passages"] >= records["documents"]
    asked = len(QUESTIONS)
    assert records["prompts"] == records["contexts"] == records["generations"] == asked
    assert records["feedback"] == asked
    assert records["dead-letters"] == 0
    assert summary["freshness_ms"]["n"] == summary["documents"]
    assert 0 < summary["freshness_ms"]["p50"] <= summary["freshness_ms"]["p99"]
    assert all(hop["n"] == asked for hop in summary["hops_ms"].values())
    assert summary["tokens_per_s"] > 0
    for answer in summary["answers"]:
        name = answer["question"].split()[2]
        assert answer["passages"][0] == f"stdlib/{name}"
        assert answer["text"].strip()
    windows = summary["windows"]
    assert windows["quality"]["generations"] >= 1
    assert windows["feedback_joined"]["joined"] >= 1
    assert windows["freshness"]["count"] >= 1
    # A model of 135 M parameters does not always keep to the words of its passage.
    assert any(answer["cited"] for answer in summary["answers"])


@pytest.mark.long
@pytest.mark.timeout(1_200)
def test_the_demo_shows_what_feedback_makes_of_the_model(tmp_path: Path) -> None:
    summary = demo(tmp_path, timeout_s=1_100)
    records, learning = summary["records"], summary["learning"]
    taught = COHORT_SIZE * len(learning["rounds"])
    asked = len(QUESTIONS) + taught + 2 * HELD_OUT
    # And some of one token, until the last version serves.
    assert records["prompts"] == records["contexts"] == records["generations"] >= asked
    assert records["feedback"] == records["examples"] == len(QUESTIONS) + taught
    assert records["dead-letters"] == 0
    assert learning["versions_released"] == records["model-updates"] >= 2
    assert learning["version"] == learning["rounds"][-1]["version"]
    assert 0 < learning["epsilon_spent"] <= 8
    assert 0 < learning["reward_before"] < 1
    assert 0 < learning["reward_after"] < 1
    # What the demonstration says how to open with `mlflow ui`.
    tracking = TrackSettings(folder=tmp_path / "demo" / "tracking")
    with mlflow_at(tmp_path, "ui", "--backend-store-uri", tracking.store_uri) as address:
        for uri in (tracking.store_uri, address):
            check_tracked(MlflowClient(uri, uri), learning, address)


def check_tracked(client: MlflowClient, learning: dict[str, Any], ui: str) -> None:
    """Run, metrics, registered versions and artifacts, by MLflow's own client and pages."""
    live = client.get_model_version_by_alias("default", "live")
    assert live.tags["model_version"] == learning["version"]
    run = client.get_run(live.run_id or "")
    assert run.data.params["mechanism"] == "correlated"
    steps = client.get_metric_history(run.info.run_id, "epsilon")
    assert len(steps) == len(learning["rounds"])
    versions = client.search_model_versions("name = 'default'")
    assert len(versions) == learning["versions_released"]
    for version in versions:
        path = f"adapters/{version.tags['model_version']}/{WEIGHTS_FILE}"
        weights = artifact(ui, run.info.run_id, path)
        assert hashlib.sha256(weights).hexdigest() == version.tags["artifact_sha256"]


def test_ctrl_c_stops_every_process(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--no-learning"],
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    family: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + START_S_MAX
        assert process.stderr is not None
        for line in process.stderr:
            assert time.monotonic() < deadline
            if line.startswith("ingest ready"):
                break
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 4  # Kafka and three agents, at least.
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        _, alive = psutil.wait_procs(family, timeout=5)
        assert alive == []
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
