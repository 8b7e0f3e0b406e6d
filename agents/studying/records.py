"""Between records and a study: a passage as a text, and what is told of versions."""

from __future__ import annotations

from pathlib import Path

from models.artifacts import sha256_of_config
from models.learning.rounds import Judgement
from models.studying.notes import Made, Notes
from models.studying.study import Study
from models.studying.texts import Text
from schemas import codec, headers
from schemas.clock import now_ms
from schemas.events import PROGRESSIVE, STUDY_ROUND, ModelUpdate, Passage, Statistic
from schemas.topics import ANALYTICS, MODEL_UPDATES, PASSAGES
from streams.producer import Outgoing
from streams.records import Record

SOURCE = "/agents/study"
UNPROTECTED = "Studied public passages; nothing hides what they say."


def read_text(record: Record) -> Text:
    """The text of a passage. Raises EventInvalid."""
    passage: Passage = codec.decode(PASSAGES, record.value or b"")
    # By the key, for a tombstone of the key deletes it.
    return Text(record.key_text or passage.passage_id, passage.document_id, passage.text)


def run_name(adapter: str) -> str:
    """The name of an adapter's study, as tracking knows it."""
    return f"{adapter}-study"


def made_record(adapter: str, made: Made, uri: str) -> tuple[ModelUpdate, Outgoing]:
    """The event of a version and its record; the same ones however often they are made."""
    update = ModelUpdate(
        adapter=adapter,
        model_version=made.version,
        origin="documents",
        published_ms=made.made_ms,
        parent_version=made.parent,
        artifact_uri=uri,
        artifact_sha256=made.sha256,
        evaluation=made.evaluation,
        reason=UNPROTECTED,
        run=run_name(adapter),
        artifact_config_sha256=sha256_of_config(Path(made.folder)),
    )
    sent = headers.make_headers(MODEL_UPDATES, f"{adapter}/{made.version}", SOURCE)
    value = codec.checked(MODEL_UPDATES, update)
    return update, Outgoing(MODEL_UPDATES, adapter, value, sent)


def lesson_record(adapter: str, notes: Notes, loss: float) -> Outgoing:
    """Progressive validation: how well new passages were known before they were studied."""
    values = {"loss": loss, "lessons": float(notes.lessons), "passages": float(notes.studied)}
    labels = {"learner": "study", "adapter": adapter, "model_version": "all"}
    return _statistic(PROGRESSIVE, labels, values, f"{adapter}/{notes.lessons}", adapter)


def judged_record(adapter: str, study: Study, judgement: Judgement) -> Outgoing:
    """What the gate found: for operators, who see refused versions nowhere else."""
    notes, released = study.notes, str(judgement.released).lower()
    labels = {
        "adapter": adapter,
        "model_version": study.version,
        "released": released,
        "run": run_name(adapter),
    }
    values = {"lessons": float(notes.lessons), "passages": float(notes.studied)}
    values |= judgement.evaluation
    return _statistic(STUDY_ROUND, labels, values, study.version, adapter)


def _statistic(
    name: str, labels: dict[str, str], values: dict[str, float], subject: str, adapter: str
) -> Outgoing:
    time_ms = now_ms()
    statistic = Statistic(name, time_ms, time_ms, labels, values)
    made = headers.make_headers(ANALYTICS, f"{name}/{subject}", SOURCE)
    value = codec.checked(ANALYTICS, statistic)
    return Outgoing(ANALYTICS, f"{name}/{adapter}", value, made)
