"""What the page knows of versions, and what it may go back to."""

from __future__ import annotations

from infra.pages.learning_state import LearningState
from schemas.events import ModelUpdate


def test_what_served_before_is_known_after_a_rollback_too() -> None:
    state = LearningState()
    first = ModelUpdate("tone", "tone-1", "online", 1, parent_version="base")
    second = ModelUpdate("tone", "tone-2", "online", 2, parent_version="tone-1")
    documents = ModelUpdate("documents", "documents-1", "documents", 3, parent_version="base")
    back = ModelUpdate("tone", "tone-1", "rollback", 4, parent_version="tone-2")
    for update in (first, second, documents, back):
        state.take(update)
    assert {name: live.model_version for name, live in state.live.items()} == {
        "tone": "tone-1",
        "documents": "documents-1",
    }
    assert state.parent_of(state.live["tone"]) == "base"
    assert state.parent_of(state.live["documents"]) == "base"


def test_of_a_version_whose_own_record_is_gone_nothing_is_known() -> None:
    state = LearningState()
    state.take(ModelUpdate("tone", "tone-1", "rollback", 4, parent_version="tone-2"))
    assert state.parent_of(state.live["tone"]) is None
