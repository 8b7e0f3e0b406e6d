"""How unusual a piece of feedback is: River's half-space trees (Tan, Ting & Liu 2011).

The trees are drawn from a seed, so their masses are all that has to be kept of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec
from river import anomaly

_TREES: Final = 15
_HEIGHT: Final = 6
_WINDOW: Final = 128
_SEED: Final = 9
# A score is compared with those of about so many events before.
_SCORES: Final = 500.0
_DEVIATIONS: Final = 5.0


class UnusualState(msgspec.Struct, frozen=True):
    """Masses of the nodes, tree by tree (the newest window's, the one's before), and counts."""

    features: list[str]
    masses: list[list[tuple[int, int]]]
    counter: int
    first_window: bool
    events: int
    mean: float
    variance: float


@dataclass(slots=True)
class Unusual:
    """Features must lie between 0 and 1, the same ones each time."""

    trees: anomaly.HalfSpaceTrees = field(init=False)
    features: list[str] = field(default_factory=list)
    events: int = 0
    mean: float = 0.0
    variance: float = 0.0

    def __post_init__(self) -> None:
        self.trees = anomaly.HalfSpaceTrees(
            n_trees=_TREES, height=_HEIGHT, window_size=_WINDOW, seed=_SEED
        )

    def is_unusual(self, features: dict[str, float]) -> bool:
        """Whether its score stands out among those before; learns the event either way."""
        score = float(self.trees.score_one(features))
        spread = max(self.variance, 1e-6) ** 0.5
        stands_out = self.events >= _WINDOW and score > self.mean + _DEVIATIONS * spread
        if not self.trees._first_window:
            self.events += 1
            share = max(1.0 / self.events, 1.0 / _SCORES)
            change = score - self.mean
            self.mean += share * change
            self.variance = (1.0 - share) * (self.variance + share * change * change)
        self.features = sorted(features)
        self.trees.learn_one(features)
        return stands_out

    def state(self) -> UnusualState:
        """What `restore` needs."""
        return UnusualState(
            self.features,
            [[(node.l_mass, node.r_mass) for node in nodes] for nodes in self.trees._tree_nodes],
            self.trees.counter,
            self.trees._first_window,
            self.events,
            self.mean,
            self.variance,
        )

    def restore(self, state: UnusualState) -> None:
        """Goes on as if there had been no restart."""
        if not state.features:
            return
        # Draws the same trees: their shape depends on the seed and on the features' names alone.
        self.trees.learn_one(dict.fromkeys(state.features, 0.5))
        for nodes, masses in zip(self.trees._tree_nodes, state.masses, strict=True):
            for node, (newest, before) in zip(nodes, masses, strict=True):
                node.l_mass, node.r_mass = newest, before
        self.trees.counter, self.trees._first_window = state.counter, state.first_window
        self.features, self.events = state.features, state.events
        self.mean, self.variance = state.mean, state.variance
