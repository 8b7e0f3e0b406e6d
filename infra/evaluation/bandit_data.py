"""Logged choices whose rewards are known: a bundled classification turned into one, or a file.

Each class is an arm, and the right one earns 1 (Dudik et al. 2011, section 5.1): so the rewards of
all arms are known, and what any policy would have earned can be counted instead of estimated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
import numpy as np
from msgspec import Meta

from models.adapting.off_policy import Log
from models.adapting.policy import Vector
from schemas.errors import DataInvalid
from schemas.topics import OUTCOMES
from streams.settings import KafkaSettings
from streams.subscription import Subscription

BUNDLED: Final = ("digits", "phishing")
_DIMENSIONS: Final = 16


class Line(msgspec.Struct, frozen=True):
    """One line of a log: `rewards` are those of all arms, where they are known."""

    context: Annotated[list[float], Meta(min_length=1)]
    arm: str
    propensity: Annotated[float, Meta(gt=0.0, le=1.0)]
    reward: float
    rewards: dict[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Rewards:
    """Contexts (n, d), the first column 1, and the reward of each arm, (n, arms)."""

    name: str
    arms: list[str]
    contexts: Vector
    rewards: Vector


@dataclass(frozen=True, slots=True)
class Logged:
    """A user's own log: contexts (n, d), the first column 1, and what was drawn."""

    arms: list[str]
    contexts: Vector
    log: Log


def bundled(name: str) -> Rewards:
    """`digits` (scikit-learn: 1,797 images of 10 digits) or `phishing` (River: 1,250 sites)."""
    if name == "digits":
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]

        features, classes = load_digits(return_X_y=True)
        features = _reduced(np.asarray(features, dtype=np.float64))
    else:
        from river.datasets import Phishing

        pairs = list(Phishing())
        features = np.array([list(x.values()) for x, _ in pairs], dtype=np.float64)
        classes = np.array([int(y) for _, y in pairs])
    arms = [str(number) for number in range(int(classes.max()) + 1)]
    return Rewards(name, arms, _with_one(features), np.eye(len(arms))[classes])


def read_log(path: Path) -> Rewards | Logged:
    """A JSON-lines log; Rewards where each line has those of all arms. Raises DataInvalid."""
    with path.open("rb") as file:
        return _table(f"{path}", [_line(path, number, text) for number, text in enumerate(file, 1)])


async def read_outcomes(kafka: KafkaSettings) -> Rewards | Logged:
    """What the river itself has logged: choices with their rewards, each outcome once.

    Raises DataInvalid where there are fewer than two.
    """
    lines: dict[str, Line] = {}
    async with Subscription(kafka, OUTCOMES, since="earliest") as subscription:
        async for outcome in subscription.present_events():
            if outcome.choice is not None and outcome.reward is not None:
                drawn = outcome.choice
                lines[outcome.outcome_id] = Line(
                    drawn.features[1:], drawn.variant, drawn.propensity, outcome.reward
                )
    return _table("outcomes", list(lines.values()))


def _table(name: str, lines: list[Line]) -> Rewards | Logged:
    if not lines:
        raise DataInvalid(f"{name} has no choice in it.", "Log a line for each choice.")
    names = {line.arm for line in lines}.union(*(line.rewards or {} for line in lines))
    arms = sorted(names)
    if len({len(line.context) for line in lines}) > 1:
        raise DataInvalid(f"The contexts in {name} differ in length.", "Give each as many numbers.")
    contexts = _with_one(np.array([line.context for line in lines]))
    if all(line.rewards is not None and set(line.rewards) == names for line in lines):
        table = [[(line.rewards or {})[arm] for arm in arms] for line in lines]
        return Rewards(name, arms, contexts, np.array(table))
    log = Log(
        np.array([arms.index(line.arm) for line in lines]),
        np.array([line.propensity for line in lines]),
        np.array([line.reward for line in lines]),
    )
    return Logged(arms, contexts, log)


def _line(path: Path, number: int, text: bytes) -> Line:
    try:
        return msgspec.json.decode(text, type=Line)
    except msgspec.DecodeError as error:
        raise DataInvalid(
            f"{path}, line {number}: {error}.",
            'Write {"context": [...], "arm": "a", "propensity": 0.5, "reward": 1} in each line.',
        ) from error


def _reduced(features: Vector) -> Vector:
    """The strongest directions, each of variance 1, by singular values."""
    centred = features - features.mean(0)
    left, _, _ = np.linalg.svd(centred, full_matrices=False)
    found: Vector = left[:, :_DIMENSIONS] * np.sqrt(len(features))
    return found


def _with_one(features: Vector) -> Vector:
    found: Vector = np.hstack([np.ones((len(features), 1)), features])
    return found
