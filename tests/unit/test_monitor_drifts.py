"""Statistics become streams by version; a new version is held against its parent."""

from __future__ import annotations

from random import Random

import pytest
from windows_by_hand import MINUTE_MS, one_of_each, rated, thumbs

from agents.monitor.board import Board
from agents.monitor.drift.drifts import Drift, Drifts, observed
from models.drift.watch import Watch
from schemas.events import DRIFT, QUALITY, Statistic

PARENTS = {"v2": "v1", "v1": "base"}


def live(drifts: Drifts, version: str, share: float, minutes: range, seed: int = 1) -> list[Drift]:
    """So many minutes of a version, 600 ratings each; what was found."""
    random, found = Random(seed), []
    for minute in minutes:
        seen = observed(rated(version, minute * MINUTE_MS, thumbs(random, share, 600), 600))
        assert seen is not None
        found += [drift for drift in drifts.add(seen) if drift.detection.detector == "cusum"]
    return found


def test_a_version_that_is_worse_from_its_first_minute_is_found() -> None:
    drifts = Drifts(Watch(), PARENTS.get)
    assert live(drifts, "v1", 0.8, range(1, 20)) == []
    (drift, *_) = live(drifts, "v2", 0.7, range(20, 23))
    assert (drift.model_version, drift.signal) == ("v2", "reward")
    assert drift.detection.window.end_ms <= 21 * MINUTE_MS
    assert "reward of v2 went from 0.5" in drift.said


def test_a_version_that_is_as_good_is_not() -> None:
    drifts = Drifts(Watch(), PARENTS.get)
    assert live(drifts, "v1", 0.8, range(1, 20)) == []
    assert live(drifts, "v2", 0.8, range(20, 40), seed=2) == []


def test_only_windows_that_say_enough_are_watched() -> None:
    reward = Statistic(DRIFT, 0, 1, {"model_version": "v", "signal": "reward"}, {"mean": 1.0})
    unrated = Statistic(QUALITY, 0, 1, {"model_version": "v"}, {"feedback": 3.0})
    assert observed(reward) is observed(unrated) is None
    watched = [seen.signal for s in one_of_each("v", MINUTE_MS) if (seen := observed(s))]
    assert watched == ["reward", "prompt_chars"]
    told_apart = {"feedback": 9.0, "rated": 4.0, "reward_mean": 0.5}
    seen = observed(Statistic(QUALITY, 0, 1, {"model_version": "v"}, told_apart))
    assert seen is not None
    assert seen.observations == 4


def value(board: Board, name: str, **labels: str) -> float | None:
    return board.registry.get_sample_value(f"headwater:{name}", labels)


def test_what_is_old_is_not_shown_as_if_it_were_now() -> None:
    board = Board()
    board.show("lasts", "For ever.", {"of": "a"}, 1, 100, lasting=True)
    board.show("passes", "A while.", {"of": "a"}, 2, 100)
    board.show("passes", "A while.", {"of": "b"}, 3, 300)
    board.show("alone", "A while.", {}, 4, 100)
    # It came late.
    board.show("passes", "A while.", {"of": "b"}, 9, 200)
    board.forget(250)
    assert value(board, "lasts", of="a") == 1
    assert value(board, "passes", of="a") is None
    assert value(board, "passes", of="b") == 3
    assert value(board, "alone") is None
    board.show("alone", "A while.", {}, 5, 400)
    assert value(board, "alone") == 5


def test_labels_from_outside_make_no_series_without_end() -> None:
    board = Board()
    for number in range(700):
        board.show("groups", "By group.", {"group": str(number)}, 1, number)
    samples = [s for family in board.registry.collect() for s in family.samples]
    assert len(samples) == 500
    # The newest ones.
    assert value(board, "groups", group="699") == 1


@pytest.mark.parametrize("name", ["v1", "v2"])
def test_one_version_serves_an_adapter(name: str) -> None:
    board = Board()
    for number, version in enumerate(("v1", "v2", name)):
        key = {"adapter": "default", "model_version": version}
        board.show("info", "Which.", key, 1, number, lasting=True)
        board.only("info", "adapter", "default", tuple(key.values()))
    samples = [s for family in board.registry.collect() for s in family.samples]
    assert [s.labels["model_version"] for s in samples] == [name]
