"""From passages to a version that others can load, on a real broker."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from broker import own_river, running
from stage import kill
from studying import delete_passage, passage, publish_passages, study_part
from test_learning_agents import until, versions

from infra.local_kafka import LocalKafka
from models.artifacts import fetch
from models.learning.adapter_files import read_adapter
from models.studying.notes import Notes, read_notes, study_file
from schemas.events import PROGRESSIVE, STUDY_ROUND
from schemas.topics import ANALYTICS
from streams.settings import KafkaSettings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


async def until_lessons(folder: Path, lessons: int, offset: int = 0) -> Notes:
    """What the study's file says, once it has had so many and has read so far."""
    async with asyncio.timeout(60):
        while True:
            found = read_notes(study_file(folder / "study"))
            notes = found[0] if found else None
            if notes and notes.lessons >= lessons and notes.offsets.get("0", 0) >= offset:
                return notes
            await asyncio.sleep(0.2)


def test_passages_become_versions_and_deleted_ones_are_not_kept(
    broker: LocalKafka, tiny_model: Path, tmp_path: Path
) -> None:
    kafka = own_river(broker.address)

    async def story(restart: object) -> None:
        await publish_passages(kafka, range(80))
        first = (await versions(kafka, 1))[0]
        # Earlier ones may have been refused, for want of fresh passages.
        assert first.model_version.startswith("documents-")
        assert first.parent_version == "base"
        assert first.origin == "documents"
        assert first.privacy is None
        assert first.evaluation["fresh_loss"] < first.evaluation["fresh_loss_live"]
        assert first.artifact_uri is not None
        assert first.artifact_sha256 is not None
        folder = fetch(first.artifact_uri, first.artifact_sha256, tmp_path / "fetched")
        assert read_adapter(folder)[1].rank == 8

        notes = await until_lessons(tmp_path, 15)
        kept = next(text for text in notes.reservoir.texts)
        number = int(kept.document_id.removeprefix("d"))
        await delete_passage(kafka, number)
        await publish_passages(kafka, range(80, 120))
        found = await versions(kafka, 2)
        assert found[1].parent_version == first.model_version
        notes = await until_lessons(tmp_path, 20)
        ids_kept = {text.text_id for text in [*notes.reservoir.texts, *notes.waiting]}
        assert passage(number).passage_id not in ids_kept
        both = {STUDY_ROUND, PROGRESSIVE}
        await until(kafka, ANALYTICS, lambda found: {told.name for told in found} == both)

    with running([study_part(kafka, tiny_model, tmp_path)], tmp_path) as supervisor:
        asyncio.run(story(supervisor))


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_study_killed_over_and_over_ends_as_an_undisturbed_one(
    broker: LocalKafka, tiny_model: Path, tmp_path: Path
) -> None:
    """Same passages, same order: the file's weights, optimizer and texts are equal to the bit."""
    ends = {}
    for name, kills in (("calm", 0), ("killed", 6)):
        kafka = own_river(broker.address)
        folder = tmp_path / name
        folder.mkdir()
        asyncio.run(publish_passages(kafka, range(160)))
        part = study_part(kafka, tiny_model, folder, HEADWATER_STUDY_LESSONS_PER_VERSION="1000")
        with running([part], folder) as supervisor:
            asyncio.run(_studied(kafka, folder, supervisor, kills))
        found = read_notes(study_file(folder / "study"))
        assert found is not None
        ends[name] = found
    (calm, calm_tensors), (killed, killed_tensors) = ends["calm"], ends["killed"]
    assert (killed.lessons, killed.studied, killed.offsets) == (
        calm.lessons,
        calm.studied,
        calm.offsets,
    )
    assert (killed.waiting, killed.fresh, killed.reservoir) == (
        calm.waiting,
        calm.fresh,
        calm.reservoir,
    )
    assert killed_tensors.keys() == calm_tensors.keys()
    assert all(bool((killed_tensors[n] == t).all()) for n, t in calm_tensors.items())


async def _studied(kafka: KafkaSettings, folder: Path, supervisor: object, kills: int) -> None:
    for number in range(kills):
        await until_lessons(folder, 2 + 4 * number)
        await kill(supervisor, "study")  # type: ignore[arg-type]
    # Judged in the silence after the last lesson, so that all is saved.
    await until_lessons(folder, 33, offset=160)
