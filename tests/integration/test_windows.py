"""The windows on a real Flink and a real Kafka, held against the oracle in plain Python."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from broker import running
from flink import differences, hearing, windows
from window_events import (
    MINUTE_MS,
    Made,
    make_exchanges,
    make_measurements,
    publish,
    shuffled,
    with_copies,
)
from window_oracle import expected

from infra.lifeline import signal_group
from schemas.clock import now_ms
from streams.settings import KafkaSettings
from streams.windows.settings import AnalyticsSettings

SETTINGS = AnalyticsSettings(
    window_s=60,
    lateness_s=5,
    # Silence must not close windows while a process starts, on a busy machine too.
    idle_s=20,
    join_s=600,
    session_s=60,
    drift_windows=3,
    reference_windows=10,
    checkpoint_s=2,
)
START_S = 180.0


def malformed(begin_ms: int) -> list[Made]:
    """What nobody can count, in the midst of what counts."""
    return [
        Made("feedback", "p1", b"{ no JSON", begin_ms),
        Made("feedback", "p1", b"\xff\xfe", begin_ms),
        Made("feedback", "p1", {"prompt_id": "p1", "rating": 7.0}, begin_ms),
        Made("feedback", "p1", {"prompt_id": "p1", "rating": "good"}, begin_ms),
        Made("feedback", "p1", {"prompt_id": "p1"}, begin_ms),
        Made("generations", "p1", {"text": 1, "timings": []}, begin_ms),
        Made("generations", "p1", b"null", begin_ms),
    ]


@pytest.mark.long
@pytest.mark.timeout(400)
def test_shuffled_copied_late_and_malformed_input_gives_what_the_oracle_says(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    begin_ms = now_ms() // MINUTE_MS * MINUTE_MS - 120 * MINUTE_MS
    records = with_copies(shuffled(make_exchanges(1_000, begin_ms, 1_800), within_s=4), within_s=20)
    records += make_measurements(200, begin_ms, 1_800)
    publish(kafka, [*records[:500], *malformed(begin_ms), *records[500:]])
    with running([windows(kafka, SETTINGS, tmp_path)], tmp_path), hearing(kafka) as heard:
        wanted = expected(records, SETTINGS)
        heard.until(lambda found: len(found) >= len(wanted), START_S)
        assert differences(heard.statistics, wanted) == []
        # Their windows are closed: told by themselves, each once, and not again in a window.
        late = late_feedback(begin_ms)
        publish(kafka, [*late, *late[:3]])
        wanted = expected(records, SETTINGS, late)
        heard.until(lambda found: len(found) >= len(wanted), 30)
        time.sleep(2 * SETTINGS.checkpoint_s)
        heard.until(lambda _: False, 1)
        assert differences(heard.statistics, wanted) == []
        assert heard.repeated == []


def late_feedback(begin_ms: int) -> list[Made]:
    return [
        Made(
            "feedback",
            f"p{number}",
            {"prompt_id": f"p{number}", "feedback_id": f"late{number}", "rating": 1.0},
            begin_ms + number * 1_000,
        )
        for number in range(10)
    ]


@pytest.mark.long
def test_a_record_typed_in_by_hand_counts_once_its_minute_is_over(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"window_s": 5, "jobs": "quality,feedback"})
    with running([windows(kafka, settings, tmp_path)], tmp_path), hearing(kafka) as heard:
        (answer, *_) = make_exchanges(1, now_ms(), 1)
        assert isinstance(answer.value, dict)
        plain = {key: value for key, value in answer.value.items() if key != "prompt_id"}
        publish(kafka, [Made("generations", "typed", plain, None)])
        time.sleep(0.05)  # after its answer
        publish(kafka, [Made("feedback", "typed", {"rating": 1.0}, None)])
        heard.until(lambda found: any(key[0] == "feedback_joined" for key in found), START_S)
        quality = [values for key, values in heard.statistics.items() if key[0] == "quality"]
        assert sum(values["generations"] for values in quality) == 1
        assert sum(values["feedback"] for values in quality) == 1
        # No further record came: the clock alone has closed the window.
        said = tail(kafka, "--json")
        assert json.loads(said)["values"] == {"joined": 1.0, "reward_mean": 1.0}
        assert "feedback_joined model_version=" in tail(kafka)
        second = subprocess.run(
            [sys.executable, "-m", "infra.cli", "analytics", "run"],
            env=os.environ | windows(kafka, settings, tmp_path).env,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
        assert second.returncode == 1
        assert second.stderr.startswith("error: Other windows run with their files in")


def tail(kafka: KafkaSettings, *options: str) -> str:
    """What the command says of the first window of job 2."""
    command = [sys.executable, "-m", "infra.cli", "analytics", "tail", "--since", "earliest"]
    env = os.environ | {
        "HEADWATER_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "HEADWATER_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
    }
    done = subprocess.run(
        [*command, "--name", "feedback_joined", "--count", "1", *options],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


@pytest.mark.long
@pytest.mark.timeout(400)
def test_killed_windows_go_on_from_their_checkpoint(kafka: KafkaSettings, tmp_path: Path) -> None:
    begin_ms = now_ms() // MINUTE_MS * MINUTE_MS - 120 * MINUTE_MS
    records = make_exchanges(1_000, begin_ms, 1_800)
    part = windows(kafka, SETTINGS, tmp_path)
    with running([part], tmp_path) as supervisor, hearing(kafka) as heard:
        publish(kafka, records[: len(records) // 2])
        heard.until(lambda found: len(found) >= 5, START_S)
        signal_group(supervisor.pids()[part.name], signal.SIGKILL)
        publish(kafka, records[len(records) // 2 :])
        wanted = expected(records, SETTINGS)
        heard.until(lambda found: len(found) >= len(wanted), START_S)
        assert differences(heard.statistics, wanted) == []
        assert heard.repeated == []
