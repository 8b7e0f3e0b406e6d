"""What follows from a drift, and when nothing does."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from agents.monitor.drift.acts import records_of
from agents.monitor.drift.drifts import Drift
from agents.monitor.drift.known import KnownDrifts
from agents.monitor.drift.rules import Judge
from agents.monitor.settings import MonitorSettings, Rules
from agents.monitor.versions import Versions
from models.drift.stream import Detection
from models.drift.windows import Window
from schemas import codec
from schemas.errors import SettingsInvalid
from schemas.events import DRIFT_DETECTED, ModelUpdate
from schemas.topics import ANALYTICS, CONTROLS, FEDERATED_ROUNDS, MODEL_UPDATES
from streams.records import Record
from streams.settings import load

NOW_MS = 1_000_000_000
ALL = Rules(on_reward=("rollback", "pause", "federate"), on_inputs=("federate",))
FELL = Detection("cusum", Window(NOW_MS - 60_000, NOW_MS, 0.4, 500), 2, 0.4, 900, 0.6, 5_000)
DRIFT = Drift("v2", "reward", FELL, 900)


def known(*updates: ModelUpdate) -> Versions:
    versions = Versions()
    for update in updates:
        value = codec.encode(update)
        versions.take(Record("model-updates", 0, 0, b"default", value, [], 1))
    return versions


def update(version: str, parent: str | None, origin: str = "online") -> ModelUpdate:
    made = ModelUpdate("default", version, origin, 1, parent)  # type: ignore[arg-type]
    return msgspec.structs.replace(
        made, artifact_uri=f"file:///{version}", artifact_sha256="0" * 64
    )


VERSIONS = known(update("v1", "base"), update("v2", "v1"))


def verdict(drift: Drift = DRIFT, rules: Rules = ALL, versions: Versions = VERSIONS) -> list[str]:
    return list(Judge(rules, "default").judge(drift, versions.live, NOW_MS).actions)


def test_every_action_that_is_asked_for_is_one_record() -> None:
    judged = Judge(ALL, "default").judge(DRIFT, VERSIONS.live, NOW_MS)
    records, told = records_of(DRIFT, judged, VERSIONS, NOW_MS)
    assert [r.topic for r in records] == [ANALYTICS, MODEL_UPDATES, CONTROLS, FEDERATED_ROUNDS]
    statistic, back, pause, asked = (codec.decode(r.topic, r.value or b"") for r in records)
    assert statistic == told
    assert told.name == DRIFT_DETECTED
    assert told.labels["actions"] == "rollback,pause,federate"
    assert (back.model_version, back.origin, back.parent_version) == ("v1", "rollback", "base")
    assert back.artifact_uri == "file:///v1"
    assert (pause.learning, asked.status) == ("paused", "asked")
    for record in (back, pause, asked):
        assert "reward of v2 went from 0.600 to 0.400" in record.reason
        assert "900 observations" in record.reason


def test_the_first_version_goes_back_to_the_base_model() -> None:
    versions = known(update("v1", "base"))
    drift = replace(DRIFT, model_version="v1")
    judged = Judge(ALL, "default").judge(drift, versions.live, NOW_MS)
    back = codec.decode(
        MODEL_UPDATES, records_of(drift, judged, versions, NOW_MS)[0][1].value or b""
    )
    assert (back.model_version, back.artifact_uri) == ("base", None)


def test_a_parent_that_is_not_known_is_told_and_nothing_is_rolled_back() -> None:
    versions = known(update("v2", "v1"))
    rules = replace(ALL, on_reward=("rollback",))
    judged = Judge(rules, "default").judge(DRIFT, versions.live, NOW_MS)
    (told,), _ = records_of(DRIFT, judged, versions, NOW_MS)
    statistic = codec.decode(ANALYTICS, told.value or b"")
    assert statistic.labels["actions"] == ""
    assert "parent is not known" in statistic.labels["reason"]


@pytest.mark.parametrize(
    ("drift", "rules"),
    [
        (DRIFT, Rules()),
        (replace(DRIFT, model_version="v1"), ALL),
        (replace(DRIFT, observations=99), ALL),
        (replace(DRIFT, detection=replace(FELL, detector="adwin")), ALL),
        (DRIFT, replace(ALL, act_within_ms=-1)),
    ],
    ids=["no rule", "not live", "too few", "another detector", "too old"],
)
def test_nothing_is_done(drift: Drift, rules: Rules) -> None:
    assert verdict(drift, rules) == []


def test_inputs_have_a_rule_of_their_own() -> None:
    assert verdict(replace(DRIFT, signal="prompt_chars")) == ["federate"]


def test_an_action_is_taken_once_in_its_cool_down() -> None:
    judge = Judge(ALL, "default")
    judge.acted("default", "rollback", NOW_MS - 1_000)
    assert judge.judge(DRIFT, VERSIONS.live, NOW_MS).actions == ("pause", "federate")
    later_ms = NOW_MS + ALL.cooldown_ms
    fresh = replace(DRIFT, detection=replace(FELL, window=Window(0, later_ms, 0.4, 500)))
    assert "rollback" in judge.judge(fresh, VERSIONS.live, later_ms).actions


def test_what_the_topic_holds_is_not_told_again() -> None:
    _, told = records_of(DRIFT, Judge(ALL, "default").judge(DRIFT, {}, NOW_MS), VERSIONS, NOW_MS)
    memory, judge = KnownDrifts(3_600_000), Judge(ALL, "default")
    assert not memory.holds(DRIFT)
    memory.note(told, judge)
    assert memory.holds(DRIFT)
    other = replace(DRIFT, signal="prompt_chars")
    assert not memory.holds(other)


@pytest.mark.parametrize(
    ("name", "value"), [("ON_REWARD_DRIFT", "explode"), ("ON_INPUT_DRIFT", "rollback")]
)
def test_a_rule_that_there_is_not_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"HEADWATER_MONITOR_{name}", value)
    with pytest.raises(SettingsInvalid, match=name):
        load(MonitorSettings)
