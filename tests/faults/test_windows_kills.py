"""A task manager that dies in the middle of its work changes no window."""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from broker import own_river, running
from fixtures import RunningBroker
from flink import cluster_parts, differences, hearing, windows
from window_events import MINUTE_MS, make_exchanges, publish
from window_oracle import expected

from infra.lifeline import signal_group
from schemas.clock import now_ms
from streams.windows.settings import AnalyticsSettings

ANSWERS = 150_000  # with their feedback, over 200,000 events
SPAN_S = 3 * 3_600


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_task_manager_killed_in_the_middle_of_200_000_events_changes_nothing(
    running_broker: RunningBroker, tmp_path: Path
) -> None:
    kafka = own_river(running_broker.node.address)
    begin_ms = now_ms() // MINUTE_MS * MINUTE_MS - 5 * 3_600_000
    records = make_exchanges(ANSWERS, begin_ms, SPAN_S, sketch=2)
    assert len(records) > 200_000
    publish(kafka, records)
    cluster, parts = cluster_parts(tmp_path / "cluster")
    settings = AnalyticsSettings(
        cluster=cluster, idle_s=30, lateness_s=5, checkpoint_s=2, session_s=60, reference_windows=10
    )
    with (
        running([*parts, windows(kafka, settings, tmp_path)], tmp_path) as supervisor,
        hearing(kafka) as heard,
    ):
        heard.until(lambda found: len(found) > 0, 240)
        assert heard.statistics, (tmp_path / "logs" / "windows.log").read_text()[-5_000:]
        assert joins(cluster) == 1, "the jobs share one join"
        signal_group(supervisor.pids()["taskmanager"], signal.SIGKILL)
        before = len(heard.statistics)
        wanted = expected(records, settings)
        assert before < len(wanted) / 2, "it was not in the middle"
        heard.until(lambda found: len(found) >= len(wanted), 240)
        assert differences(heard.statistics, wanted) == []
        assert heard.repeated == []


def joins(cluster: str) -> int:
    """In how many tasks of the only job feedback meets its answer."""
    (job,) = asked(cluster, "jobs")["jobs"]
    tasks = asked(cluster, f"jobs/{job['id']}")["vertices"]
    return sum("TemporalJoin" in task["name"] for task in tasks)


def asked(cluster: str, path: str) -> Any:
    with urllib.request.urlopen(f"http://{cluster}/{path}", timeout=10) as answer:
        return json.load(answer)
