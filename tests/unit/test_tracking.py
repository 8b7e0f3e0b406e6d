"""MLflow and TensorBoard, read back with their own readers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow_servers import artifact, mlflow_at
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_adapter import write_tiny_adapter

from agents.tracking.points import Point, round_point, statistic_point
from agents.tracking.settings import TrackSettings
from agents.tracking.sinks import Sinks, refused
from infra.evaluation.tracked import track_evaluation
from models.artifacts import fetch
from models.learning.adapter_layout import WEIGHTS_FILE
from schemas.events import FederatedRound, ModelUpdate, PrivacySpent, Statistic

RUN = "tone-0123456789ab"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the store of all these tests: making its tables takes seconds."""
    return tmp_path_factory.mktemp("tracking")


def settings_of(folder: Path, experiment: str) -> TrackSettings:
    return TrackSettings(folder=folder, experiment=experiment)


def a_round(number: int, loss: float) -> Statistic:
    labels = {"run": RUN, "adapter": "tone", "model_version": f"tone-{number}", "released": "true"}
    values = {"rounds": float(number), "gate_loss": loss, "epsilon": number / 2}
    return Statistic("learning_round", number * 1000, number * 1000, labels, values)


def test_a_run_is_written_once_however_often_its_topics_are_read(folder: Path) -> None:
    settings = settings_of(folder, "once")
    begun = Statistic("learning_begun", 500, 500, {"run": RUN, "rank": "4"}, {})
    ended = Statistic("learning_ended", 9000, 9000, {"run": RUN}, {})
    for _ in range(2):
        sinks = Sinks(settings)
        for statistic in (begun, a_round(1, 2.0), a_round(2, 1.5), a_round(2, 1.5), ended):
            point = statistic_point(statistic)
            assert point is not None
            sinks.write(point)
        sinks.close()
    client = MlflowClient(settings.store_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("once").experiment_id])
    assert run.info.run_name == RUN and run.info.status == "FINISHED"
    assert (run.info.start_time, run.info.end_time) == (500, 9000)
    assert run.data.params == {"rank": "4"}
    history = client.get_metric_history(run.info.run_id, "gate_loss")
    assert [(found.step, found.value) for found in history] == [(1, 2.0), (2, 1.5)]
    curves = EventAccumulator(str(settings.curves / RUN))
    curves.Reload()
    points = [(event.step, event.value) for event in curves.Scalars("gate_loss")]
    assert points == [(1, 2.0), (2, 1.5)]


def test_what_is_worth_a_point() -> None:
    labels = {"run": "documents-study", "model_version": "documents-2", "released": "false"}
    judged = Statistic("study_round", 7, 7, labels, {"lessons": 16.0, "gate_loss": 2.5})
    point = statistic_point(judged)
    assert point is not None and point.step == 16 and point.metrics["released"] == 0.0
    kept = {"run": "tune.0-abc", "kept": "true", "rank": "4"}
    point = statistic_point(Statistic("tuning_rung", 7, 7, kept, {"rung": 2.0, "loss": 1.0}))
    assert point is not None and point.step == 2 and point.ended is None
    assert point.params == {"rank": "4"}
    assert statistic_point(Statistic("tuning_rung", 7, 7, kept | {"kept": "false"})).ended  # type: ignore[union-attr]
    assert statistic_point(Statistic("quality", 7, 7, {"run": RUN}, {"rounds": 1.0})) is None
    assert statistic_point(Statistic("learning_round", 7, 7, {}, {"rounds": 1.0})) is None


def test_a_federated_round_is_a_part_of_its_learning(folder: Path) -> None:
    settings = settings_of(folder, "rounds")
    spent = PrivacySpent("gaussian", "device", epsilon=0.5, epsilon_total=1.5)
    told = [
        FederatedRound("r1", "asked", "tone", 1),
        FederatedRound("r1", "started", "tone", 2, clients=4),
        FederatedRound("r1", "finished", "tone", 5, clients=4, privacy=spent, run=RUN),
        FederatedRound("r2", "started", "tone", 6, clients=4),
        FederatedRound("r2", "failed", "tone", 7, reason="too few devices"),
    ]
    assert round_point(told[0]) is None
    sinks = Sinks(settings)
    for event in told[1:]:
        point = round_point(event)
        assert point is not None
        sinks.write(point)
    sinks.close()
    client = MlflowClient(settings.store_uri)
    found = client.search_runs([client.get_experiment_by_name("rounds").experiment_id])
    runs = {run.info.run_name: run for run in found}
    assert runs["r1"].info.status == "FINISHED" and runs["r2"].info.status == "FAILED"
    assert runs["r1"].data.metrics == {"clients": 4.0, "epsilon": 0.5, "epsilon_total": 1.5}
    assert runs["r1"].data.tags["mlflow.parentRunId"] == runs[RUN].info.run_id
    assert runs["r2"].data.tags["reason"] == "too few devices"


def test_releases_are_versions_and_the_alias_is_on_what_serves(
    folder: Path, tmp_path: Path
) -> None:
    settings = settings_of(folder, "releases")
    updates = []
    for number in (1, 2):
        version = tmp_path / f"version-{number}"
        sha256 = write_tiny_adapter(version, number)
        updates.append(
            ModelUpdate(
                "tone/of voice",
                f"tone-{number}",
                "online",
                number,
                parent_version="base",
                artifact_uri=version.as_uri(),
                artifact_sha256=sha256,
                run=RUN,
                privacy=PrivacySpent("gaussian", epsilon=1.0, epsilon_total=float(number)),
            )
        )
    client = MlflowClient(settings.store_uri, settings.store_uri)
    live = []
    for _ in range(2):
        sinks = Sinks(settings)
        for update in updates:
            sinks.release(update)
        for version in ("tone-2", "tone-1"):
            sinks.make_live("tone/of voice", version)
            live.append(client.get_model_version_by_alias("tone_of voice", "live").version)
        sinks.close()
    assert [int(number) for number in live] == [2, 1, 2, 1]
    first, second = sorted(
        client.search_model_versions("name = 'tone_of voice'"), key=lambda found: int(found.version)
    )
    assert first.tags["model_version"] == "tone-1" and second.tags["epsilon_total"] == "2.0"
    # What the registry holds is what was published, to the last bit.
    assert fetch(str(first.source), updates[0].artifact_sha256 or "", tmp_path / "copies")
    # Where the base model serves nothing of ours is live.
    sinks = Sinks(settings)
    sinks.make_live("tone/of voice", "base")
    sinks.close()
    with pytest.raises(MlflowException):
        client.get_model_version_by_alias("tone_of voice", "live")


@pytest.mark.long
def test_a_server_has_runs_artifacts_and_versions_too(tmp_path: Path) -> None:
    """It keeps the artifacts itself: nothing of them lies in the folder of the settings."""
    store = f"sqlite:///{tmp_path}/server.db"
    with mlflow_at(tmp_path, "server", "--backend-store-uri", store) as address:
        settings = TrackSettings(mlflow_uri=address, folder=tmp_path / "own", experiment="served")
        sha256 = write_tiny_adapter(tmp_path / "version", 1)
        uri = (tmp_path / "version").as_uri()
        sinks = Sinks(settings)
        point = statistic_point(a_round(1, 2.0))
        assert point is not None
        sinks.write(point)
        sinks.attach(point, {"gate_loss": 2.0})
        sinks.release(ModelUpdate("tone", "tone-1", "online", 1, "base", uri, sha256, run=RUN))
        sinks.make_live("tone", "tone-1")
        sinks.close()
        client = MlflowClient(address, address)
        (run,) = client.search_runs([client.get_experiment_by_name("served").experiment_id])
        assert run.data.metrics["gate_loss"] == 2.0
        live = client.get_model_version_by_alias("tone", "live")
        assert (live.tags["model_version"], live.run_id) == ("tone-1", run.info.run_id)
        figures = artifact(address, run.info.run_id, "figures.json")
        assert json.loads(figures) == {"gate_loss": 2.0}
        weights = artifact(address, run.info.run_id, f"adapters/tone-1/{WEIGHTS_FILE}")
        assert hashlib.sha256(weights).hexdigest() == sha256
    assert not (tmp_path / "own" / "artifacts").exists()


def test_a_release_whose_files_are_gone_is_registered_by_its_address(folder: Path) -> None:
    settings = settings_of(folder, "gone")
    gone = (folder / "nowhere").as_uri()
    update = ModelUpdate("gone", "gone-1", "online", 1, None, gone, "0" * 64, run=RUN)
    sinks = Sinks(settings)
    sinks.release(update)
    sinks.close()
    (found,) = MlflowClient(settings.store_uri).search_model_versions("name = 'gone'")
    assert found.source == gone and found.tags["artifact_sha256"] == "0" * 64


def test_what_a_store_will_never_take_is_told_from_what_it_cannot_take_now(folder: Path) -> None:
    sinks = Sinks(settings_of(folder, "refused"))
    sinks.write(Point("fixed", 1, params={"rank": "4"}))
    with pytest.raises(MlflowException) as changed:
        sinks.write(Point("fixed", 2, params={"rank": "8"}))
    sinks.close()
    assert refused(changed.value)
    assert not refused(OSError("no space left"))


def test_an_evaluation_is_a_run_with_its_figures(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_TRACK_FOLDER", str(folder))
    track_evaluation("retrieval", {"fused": {"mrr": 0.9}, "holds": True}, {"file": "xquad.json"})
    client = MlflowClient(TrackSettings(folder=folder).store_uri)
    experiment = client.get_experiment_by_name("headwater-evaluations")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics == {"fused/mrr": 0.9, "holds": 1.0}
    assert run.data.params == {"file": "xquad.json"}
    kept = Path(run.info.artifact_uri.removeprefix("file://")) / "figures.json"
    assert json.loads(kept.read_text())["fused"] == {"mrr": 0.9}


def test_an_evaluation_is_not_lost_where_tracking_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADWATER_TRACK_MLFLOW_URI", "sqlite:////proc/nowhere/mlflow.db")
    monkeypatch.setenv("HEADWATER_TRACK_FOLDER", "/proc/nowhere")
    track_evaluation("retrieval", {"mrr": 0.9})
    assert "not tracked" in capsys.readouterr().err
