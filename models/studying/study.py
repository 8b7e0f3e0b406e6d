"""One adapter's study, from wherever its file says: passages in, lessons and versions out.

No Kafka here. Everything belongs to one thread.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from models.engine.load import Loaded
from models.engine.protocol import BASE_VERSION
from models.learning.adapter_files import artifact_bytes, write_adapter
from models.learning.batches import EncodedAnswer
from models.learning.gate import LiveVersion
from models.learning.learner import end_token_of
from models.learning.lora import new_adapter
from models.learning.rounds import Judgement
from models.learning.user_gradients import AdaptedModel
from models.privacy.noise import Tensors
from models.studying.curriculum import Curriculum
from models.studying.general import GeneralItem, encode_general
from models.studying.notes import FolderLock, Made, Notes, read_notes, study_file, write_notes
from models.studying.reservoir import Reservoir
from models.studying.student import Student
from models.studying.study_gate import StudyGate
from models.studying.texts import Text, encode_texts, pack, rows_alone, separator
from schemas.errors import HeadwaterError, SettingsInvalid


class Study:
    """`notes` say what was read; `student` has the weights.

    Every change is in memory until `save`, or `release`, which saves as well.
    """

    def __init__(
        self,
        loaded: Loaded,
        settings: Curriculum,
        general: Sequence[GeneralItem],
        folder: Path,
        adapter: str,
        base: str,
    ) -> None:
        """Raises SettingsInvalid where the study in `folder` began otherwise, or runs elsewhere."""
        self._settings = settings
        self._folder = folder
        self._adapter = adapter
        self._base = base
        self._tokenizer = loaded.tokenizer
        self._between = separator(loaded.tokenizer)
        encoded = encode_general(loaded.tokenizer, end_token_of(loaded), general)
        self._general = encoded.replayed
        self._lock = FolderLock(folder)
        try:
            self.notes, tensors = self._resumed()
        except HeadwaterError:
            self._lock.close()
            raise
        model = AdaptedModel(loaded.model, settings.student.shape, packed=True)
        begun = new_adapter(loaded.model, settings.student.shape)
        self.student = Student(model, settings.student, begun)
        if tensors:
            self.student.restore(tensors)
        self._gate = StudyGate(model, encoded, settings.tolerance)

    def close(self) -> None:
        """Takes the adapter off the model; others may go on with the folder."""
        self.student.model.close()
        self._lock.close()

    @property
    def due(self) -> bool:
        """Whether enough texts wait for a lesson."""
        return len(self.notes.waiting) >= self._settings.new

    def read(self, text: Text) -> None:
        """Takes a text in; one of the same id, which it replaces, is forgotten."""
        self.forget(text.text_id)
        if self._settings.holds_out(text.document_id):
            self.notes.fresh = [*self.notes.fresh, text][-self._settings.fresh_kept :]
        else:
            self.notes.waiting.append(text)

    def forget(self, text_id: str) -> bool:
        """Removes a deleted text from all that will be studied; True where it was there.

        What the weights have of it stays in them until a rebuild.
        """
        notes = self.notes
        known = [*notes.waiting, *notes.fresh, *notes.reservoir.texts]
        if all(text.text_id != text_id for text in known):
            return False
        notes.waiting = [text for text in notes.waiting if text.text_id != text_id]
        notes.fresh = [text for text in notes.fresh if text.text_id != text_id]
        notes.reservoir.forget(text_id)
        return True

    def lesson(self) -> float:
        """One step on what waits; the loss of the new texts before it. Not saved yet."""
        notes, settings = self.notes, self._settings
        new, notes.waiting = notes.waiting[: settings.new], notes.waiting[settings.new :]
        old = notes.reservoir.draw(settings.old)
        fresh, known = self._packed(new), self._packed(old)
        losses = self.student.step([*fresh, *known, *self._next_general()])
        for text in new:
            notes.reservoir.offer(text)
        notes.lessons += 1
        notes.studied += len(new)
        counts = [len(row.answer) for row in fresh]
        return sum(n * loss for n, loss in zip(counts, losses, strict=False)) / max(1, sum(counts))

    def release(self, live: Callable[[], LiveVersion | None]) -> Judgement:
        """Judges what was studied against what is `live` (against the base in a rebuild).

        Where it passes, its version is written, durable, and stands in `notes.made` until
        `published`. Saves in any case.
        """
        notes = self.notes
        base = LiveVersion(BASE_VERSION, {}, self._settings.student.shape)
        known = live() if notes.rebuilt else base
        if known is None:
            # What cannot be read cannot be beaten.
            return Judgement(released=False, evaluation={})
        judgement = self._gate.judge(self.student.adapter, known, self._fresh())
        notes.version_number += 1
        notes.judged = notes.lessons
        if judgement.released:
            notes.made = self._made(known.model_version, judgement)
            notes.rebuilt = True
        self.save()
        return judgement

    def published(self) -> None:
        """What was made is known to all."""
        self.notes.made = None
        self.save()

    def save(self) -> None:
        """Makes all of it durable at once: offsets, texts, weights and optimizer."""
        write_notes(study_file(self._folder), self.notes, self.student.state())

    @property
    def version(self) -> str:
        """The name of the last version that was judged."""
        return f"{self._adapter}-{self.notes.version_number}"

    def _resumed(self) -> tuple[Notes, Tensors]:
        """What the folder has; or new notes, without tensors."""
        began_with = self._settings.began_with(self._base)
        found = read_notes(study_file(self._folder))
        if found is None:
            return Notes(began_with, Reservoir(self._settings.reservoir)), {}
        notes, tensors = found
        if tensors and notes.began_with != began_with:
            raise SettingsInvalid(
                f"The study in {self._folder} began with {notes.began_with}, not {began_with}.",
                "Restore these settings, or begin again with `headwater study rebuild`.",
            )
        notes.began_with = began_with
        notes.reservoir.capacity = self._settings.reservoir
        return notes, tensors

    def _made(self, parent: str, judgement: Judgement) -> Made:
        adapter, shape = self.student.adapter, self._settings.student.shape
        # Named by its content: done again after a crash, it finds its own folder.
        name = hashlib.sha256(artifact_bytes(adapter)).hexdigest()[:16]
        folder = self._folder / "versions" / f"{self.version}-{name}"
        digest = write_adapter(folder, adapter, shape, self._base)
        made_ms = time.time_ns() // 1_000_000
        return Made(self.version, str(folder), digest, parent, made_ms, judgement.evaluation)

    def _packed(self, texts: Sequence[Text]) -> list[EncodedAnswer]:
        return pack(self._encoded(texts), self._between, self._settings.row_tokens)

    def _fresh(self) -> list[EncodedAnswer]:
        return rows_alone(self._encoded(self.notes.fresh), self._between)

    def _next_general(self) -> list[EncodedAnswer]:
        notes, count = self.notes, self._settings.general if self._general else 0
        start, notes.general_read = notes.general_read, notes.general_read + count
        return [self._general[(start + i) % len(self._general)] for i in range(count)]

    def _encoded(self, texts: Sequence[Text]) -> list[list[int]]:
        return encode_texts(self._tokenizer, [text.text for text in texts])
