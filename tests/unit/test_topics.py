"""The declared topics hold together."""

from __future__ import annotations

import pytest

from schemas import limits
from schemas.topics import (
    BY_NAME,
    CONTEXTS,
    DEAD_LETTERS,
    DOCUMENTS,
    GENERATIONS,
    PASSAGES,
    PROMPTS,
    TOKENS,
    TOPICS,
    Topic,
)

by_topic = pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)


def test_the_names_are_those_of_the_design() -> None:
    assert list(BY_NAME) == [
        "documents",
        "passages",
        "prompts",
        "contexts",
        "tokens",
        "generations",
        "feedback",
        "examples",
        "outcomes",
        "verdicts",
        "policies",
        "model-updates",
        "federated-rounds",
        "analytics",
        "dead-letters",
        "controls",
    ]


@by_topic
def test_the_key_is_a_field_of_the_event(topic: Topic) -> None:
    assert topic.key in topic.event.__struct_fields__


@by_topic
def test_every_event_belongs_to_one_topic(topic: Topic) -> None:
    assert [other for other in TOPICS if other.event is topic.event] == [topic]


def test_compacted_topics_take_tombstones() -> None:
    assert all(topic.tombstones for topic in TOPICS if topic.compacted)
    assert {topic.name for topic in TOPICS if topic.compacted} == {
        "documents",
        "passages",
        "policies",
        "model-updates",
        "controls",
    }


def test_topics_that_are_worked_on_together_have_as_many_partitions() -> None:
    assert DOCUMENTS.partitions == PASSAGES.partitions
    assert PROMPTS.partitions == CONTEXTS.partitions == GENERATIONS.partitions


def test_a_dead_letter_can_hold_the_largest_record_in_base64() -> None:
    others = [topic for topic in TOPICS if topic is not DEAD_LETTERS]
    largest_bytes = max(topic.record_bytes_max for topic in others)
    assert DEAD_LETTERS.record_bytes_max > largest_bytes * 4 / 3


def test_a_context_can_hold_any_prompt_and_an_answer_its_passages() -> None:
    assert CONTEXTS.record_bytes_max > PROMPTS.record_bytes_max
    passages_bytes = limits.TOP_K_MAX * limits.PASSAGE_CHARS_MAX
    assert TOKENS.record_bytes_max > passages_bytes + limits.ANSWER_CHARS_MAX
