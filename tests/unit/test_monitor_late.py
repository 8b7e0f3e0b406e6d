"""Late feedback, told piece by piece, is counted as so many pieces."""

from __future__ import annotations

from agents.monitor.board import Board
from agents.monitor.events import EventFigures
from schemas.events import FEEDBACK_LATE, QUALITY, Statistic


def test_each_late_piece_and_each_unmatched_one_is_counted() -> None:
    board = Board()
    events = EventFigures(board)
    for number in range(3):
        piece = {"prompt_id": f"p{number}", "feedback_id": f"f{number}"}
        events.count_late(Statistic(FEEDBACK_LATE, 1, 1, piece, {"late": 1.0, "reward_mean": 0.5}))
    window = {"what": "unmatched"}
    events.count_late(Statistic(FEEDBACK_LATE, 0, 60_000, window, {"unmatched": 4.0}))
    events.count_late(Statistic(QUALITY, 0, 60_000, {"model_version": "v1"}, {"late": 9.0}))
    assert board.registry.get_sample_value("headwater:feedback_late_total") == 3
    assert board.registry.get_sample_value("headwater:feedback_unmatched_total") == 4
