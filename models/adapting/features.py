"""Cheap numbers about a question and about an answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.adapting.policy import Vector

# The question's embedding is hashed down to so many numbers (Johnson & Lindenstrauss 1984).
PROJECTED: Final = 4
QUESTION_FEATURES: Final = 5 + PROJECTED


def question_features(text: str, turns: int, embedding: NDArray[np.float32]) -> list[float]:
    """What variants are chosen by: 1, length, turns, digits, code, and the hashed embedding."""
    signs = _signs(len(embedding))
    projected = signs @ np.asarray(embedding, dtype=np.float64)
    return [
        1.0,
        min(math.log1p(len(text)) / 10.0, 1.0),
        min(math.log1p(turns) / 5.0, 1.0),
        float(any(letter.isdigit() for letter in text)),
        float(any(sign in text for sign in "(){}`=_")),
        # Six decimals: it travels with every context and record.
        *(round(float(value), 6) for value in projected),
    ]


def length_feature(text: str) -> float:
    """How long a text is, for the reward model."""
    return round(math.log1p(len(text)), 6)


def answer_features(
    *,
    answer: str,
    cosines: Sequence[float],
    cited: int,
    cut: bool,
    logprobs: Sequence[float],
    duration_ms: float,
    sketch: Sequence[float] = (),
) -> dict[str, float]:
    """What the reward model reads of an answer; those that are not known are left out.

    `sketch` stands for the question's embedding (`models/sketch.py`).
    """
    found = {
        "answer_chars": length_feature(answer),
        "passages": float(len(cosines)),
        "cited": float(cited),
        "cut": float(cut),
        "duration": math.log1p(max(duration_ms, 0.0)),
    }
    if cosines:
        found |= {"cosine_top": max(cosines), "cosine_mean": sum(cosines) / len(cosines)}
    if logprobs:
        found |= {"logprob_mean": sum(logprobs) / len(logprobs), "logprob_least": min(logprobs)}
    found |= {f"embedding_{number}": value for number, value in enumerate(sketch)}
    return {name: round(value, 6) for name, value in found.items()}


def fingerprint(text: str) -> str:
    """Equal for texts that differ in case and white space only; empty for none."""
    plain = " ".join(text.casefold().split())
    return sha256(plain.encode()).hexdigest()[:16] if plain else ""


def _signs(size: int) -> Vector:
    """The same random signs in every process, (PROJECTED, size), scaled to keep lengths."""
    if size not in _KNOWN_SIGNS:
        generator = np.random.Generator(np.random.PCG64(20_261_121))
        drawn = generator.integers(0, 2, (PROJECTED, size)).astype(np.float64)
        _KNOWN_SIGNS[size] = (drawn * 2.0 - 1.0) / math.sqrt(PROJECTED)
    return _KNOWN_SIGNS[size]


_KNOWN_SIGNS: Final[dict[int, Vector]] = {}
