"""What `headwater eval documents` measures, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_adapter import tiny_tensors
from tiny_model import build_tiny_model
from typer.testing import CliRunner

from infra.cli import cli
from infra.evaluation.documents import Point, Trial, articles_of, verdict
from infra.evaluation.squad import read_squad
from infra.evaluation.two_adapters import compare_arms
from models.engine.load import load
from models.learning.lora import LoraShape
from models.learning.optimizers import OptimizerSettings
from models.studying.curriculum import Curriculum
from models.studying.student import StudentSettings
from schemas.errors import DataInvalid

SHAPE = LoraShape(2, 8.0, ("q_proj", "v_proj"))
CURRICULUM = Curriculum(
    StudentSettings(SHAPE, OptimizerSettings("adam", 1e-2)), new=2, old=1, general=1
)


def squad_file(folder: Path, articles: int) -> Path:
    """Two paragraphs an article, all about rivers."""
    data = [
        {
            "title": f"River {number}",
            "paragraphs": [
                {"context": f"The river {number} carries {what} down to the sea.", "qas": []}
                for what in ("documents", "answers")
            ],
        }
        for number in range(articles)
    ]
    path = folder / "squad.json"
    path.write_text(json.dumps({"data": data}))
    return path


def test_articles_to_come_get_easier_and_a_run_goes_on(tmp_path: Path) -> None:
    loaded = load(str(build_tiny_model(tmp_path / "model")), tmp_path, "cpu", "float32")
    documents = read_squad(squad_file(tmp_path, 8)).documents
    assert [len(article) for article in articles_of(documents)] == [2] * 8
    points: list[Point] = []
    trial = Trial(loaded, documents, CURRICULUM, tmp_path / "kept")
    trial.run(2, points.append)
    trial.study.close()
    assert [point.passages for point in points] == [0, 6, 12]
    assert points[2].to_come < points[0].to_come
    # What is never studied is in none of the texts.
    studied = {text.text_id for text in trial.stream}
    assert not studied & {d.document_id for article in articles_of(documents)[6:] for d in article}

    again: list[Point] = []
    resumed = Trial(loaded, documents, CURRICULUM, tmp_path / "kept")
    resumed.run(2, again.append)
    assert again[-1].to_come == points[-1].to_come
    arms = list(
        compare_arms(
            loaded,
            resumed.studied,
            (tiny_tensors(3), SHAPE),
            resumed.probes.to_come,
            resumed.probes.chat,
        )
    )
    resumed.study.close()
    losses = {arm.name: arm.documents for arm in arms}
    assert losses["documents alone"] != losses["base"]
    # In float32 merging rounds next to nothing, and the weights are put back each time.
    assert losses["both on a row"] == pytest.approx(losses["both merged"], abs=1e-3)
    assert losses["both on a row"] == pytest.approx(
        losses["documents merged, feedback on the row"], abs=1e-3
    )


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_what_both_kinds_of_learning_do_together_is_tracked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_TRACK_FOLDER", str(tmp_path / "tracking"))
    monkeypatch.setenv("HEADWATER_TRACK_MLFLOW", "false")
    model = build_tiny_model(tmp_path / "model")
    told = "\n".join(['"mr","ref"', *(f'"name[River {n}]","Water, {n}."' for n in range(16))])
    for name in ("devset.csv", "testset_w_refs.csv"):
        (tmp_path / name).write_text(told)
    asked = [squad_file(tmp_path, 4), "--model", model, "--points", 1]
    asked += ["--feedback", tmp_path, "--corrections", 16, "--json"]
    done = CliRunner().invoke(cli, ["eval", "documents", *map(str, asked)])
    losses = {
        arm["name"]: arm["feedback"]
        for line in done.stdout.splitlines()
        if "name" in (arm := json.loads(line))
    }
    assert len(losses) == 6, done.output
    (run,) = (tmp_path / "tracking" / "tensorboard" / "evaluations").glob("documents-feedback-*")
    curves = EventAccumulator(str(run))
    curves.Reload()
    (kept,) = curves.Scalars("both on a row/feedback")
    assert kept.value == pytest.approx(losses["both on a row"])


def test_too_few_articles_are_refused(tmp_path: Path) -> None:
    loaded = load(str(build_tiny_model(tmp_path / "model")), tmp_path, "cpu", "float32")
    with pytest.raises(DataInvalid, match="3 articles are too few"):
        Trial(loaded, read_squad(squad_file(tmp_path, 3)).documents, CURRICULUM, tmp_path / "kept")


def a_point(to_come: float, general: float) -> Point:
    return Point(0, 0.0, to_come, 10.0, general, 10.0, 10.0)


@pytest.mark.parametrize(
    ("to_come", "general", "falls", "harmless"),
    [
        ((20.0, 19.0, 18.0), 10.1, True, True),
        ((20.0, 18.0, 18.5), 10.3, False, False),
    ],
)
def test_the_verdict_minds_every_step_and_two_percent(
    to_come: tuple[float, ...], general: float, falls: bool, harmless: bool
) -> None:
    found = verdict([a_point(value, general if n else 10.0) for n, value in enumerate(to_come)])
    assert found["to_come_falls"] is falls
    assert found["general_rises_2_percent_at_most"] is harmless
