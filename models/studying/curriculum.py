"""What is studied, and how."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from models.studying.student import StudentSettings


@dataclass(frozen=True, slots=True)
class Curriculum:
    """`new`, `old` and `general` count the texts of a lesson. `old` ones are drawn from the
    `reservoir` of those studied before. Of `held_out_of` documents one is never studied."""

    student: StudentSettings
    new: int = 8
    old: int = 2
    general: int = 4
    reservoir: int = 512
    held_out_of: int = 8
    fresh_kept: int = 32
    row_tokens: int = 512
    tolerance: float = 0.02

    def began_with(self, base: str) -> dict[str, str | int | float]:
        """What must not change while a study lives; `base` names the model."""
        shape = self.student.shape
        return {
            "model": base,
            "rank": shape.rank,
            "targets": ",".join(shape.targets),
            "learning_rate": self.student.optimizer.learning_rate,
        }

    def holds_out(self, document_id: str) -> bool:
        """Whether a document is never studied; 0 in place of `held_out_of`: none is."""
        digest = hashlib.blake2b(document_id.encode(), digest_size=8).digest()
        return self.held_out_of > 0 and int.from_bytes(digest, "little") % self.held_out_of == 0
