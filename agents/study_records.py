"""Between records and a study: a passage as a text, and what is told of versions."""

from __future__ import annotations

from models.learning.rounds import Judgement
from models.studying.notes import Made
from models.studying.study import Study
from models.studying.texts import Text
from schemas import codec, headers
from schemas.clock import now_ms
from schemas.events import STUDY_ROUND, ModelUpdate, Passage, Statistic
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
    )
    sent = headers.make_headers(MODEL_UPDATES, f"{adapter}/{made.version}", SOURCE)
    value = codec.checked(MODEL_UPDATES, update)
    return update, Outgoing(MODEL_UPDATES, adapter, value, sent)


def judged_record(adapter: str, study: Study, judgement: Judgement) -> Outgoing:
    """What the gate found: for operators, who see refused versions nowhere else."""
    time_ms, notes = now_ms(), study.notes
    released = str(judgement.released).lower()
    statistic = Statistic(
        name=STUDY_ROUND,
        window_start_ms=time_ms,
        window_end_ms=time_ms,
        labels={
            "adapter": adapter,
            "model_version": study.version,
            "released": released,
            "run": run_name(adapter),
        },
        values={
            "lessons": float(notes.lessons),
            "passages": float(notes.studied),
            **judgement.evaluation,
        },
    )
    made = headers.make_headers(ANALYTICS, f"{STUDY_ROUND}/{study.version}", SOURCE)
    value = codec.checked(ANALYTICS, statistic)
    return Outgoing(ANALYTICS, f"{STUDY_ROUND}/{adapter}", value, made)
