"""The E2E data set of restaurant descriptions, read as a stream of corrections."""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path

from models.learning.examples import TrainingExample
from schemas.errors import DataInvalid

TRAINING_FILE = "devset.csv"
TEST_FILE = "testset_w_refs.csv"


@dataclass(frozen=True, slots=True)
class Described:
    """What was asked, and every sentence that somebody wrote for it."""

    question: str
    references: tuple[str, ...]


def read_corrections(
    folder: Path, limit: int | None = None, examples_per_user_max: int = 1, seed: int = 0
) -> list[TrainingExample]:
    """Corrections in a random but fixed order; each user gives 1 to `examples_per_user_max`.

    A user's corrections are spread over the stream. Raises DataInvalid.
    """
    rows = _read(folder / TRAINING_FILE)
    generator = random.Random(seed)
    generator.shuffle(rows)
    users: list[str] = []
    for number in range(len(rows)):
        users += [f"user-{number}"] * generator.randint(1, examples_per_user_max)
    users = users[: len(rows)]
    if examples_per_user_max > 1:
        generator.shuffle(users)
    return [
        TrainingExample(
            example_id=f"e2e-{number}",
            user=user,
            messages=({"role": "user", "content": question(meaning)},),
            correction=reference,
        )
        for number, (user, (meaning, reference)) in enumerate(zip(users, rows, strict=True))
    ][:limit]


def read_test(folder: Path, limit: int | None = None, seed: int = 1) -> list[Described]:
    """Test questions in a random but fixed order. Raises DataInvalid."""
    references: dict[str, list[str]] = {}
    for meaning, reference in _read(folder / TEST_FILE):
        references.setdefault(meaning, []).append(reference)
    found = [Described(question(m), tuple(texts)) for m, texts in references.items()]
    random.Random(seed).shuffle(found)
    return found[:limit]


def question(meaning: str) -> str:
    """The prompt of a meaning representation."""
    return f"Describe: {meaning}"


def _read(path: Path) -> list[tuple[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [(row["mr"], row["ref"]) for row in csv.DictReader(file)]
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise DataInvalid(
            f"{path} cannot be read as E2E data: {error!r}.",
            f"Give the folder with {TRAINING_FILE} and {TEST_FILE} of the E2E data set.",
        ) from error
