"""The chat prompt of a grounded answer, and which passages an answer used."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.prompting import ChatMessage, build_messages, cited_passages, fit_passages

CONVERSATION: list[ChatMessage] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "When does water boil?"},
]
BOILING = "Water boils at 100 degrees Celsius at sea level."
FREEZING = "Ice melts at 0 degrees Celsius, whatever the pressure nearly is."


def words(messages: Sequence[ChatMessage]) -> int:
    """Stands for a tokenizer."""
    return sum(len(message["content"].split()) for message in messages)


def test_passages_are_numbered_before_the_question() -> None:
    *earlier, last = build_messages(CONVERSATION, [BOILING, FREEZING])
    assert earlier == CONVERSATION[:1]
    assert last["role"] == "user"
    content = last["content"]
    places = [content.index(part) for part in (f"[1] {BOILING}", f"[2] {FREEZING}")]
    assert places == sorted(places)
    assert content.endswith("question: When does water boil?")


def test_without_passages_the_conversation_is_as_it_was() -> None:
    assert build_messages(CONVERSATION, []) == tuple(CONVERSATION)


def test_building_leaves_the_given_messages_alone() -> None:
    before = [dict(message) for message in CONVERSATION]
    build_messages(CONVERSATION, [BOILING])
    assert before == CONVERSATION


@given(passages=st.lists(st.text("ab ", min_size=1), max_size=6), tokens_max=st.integers(0, 80))
def test_as_many_passages_as_fit_and_not_one_more(passages: list[str], tokens_max: int) -> None:
    count = fit_passages(CONVERSATION, passages, words, tokens_max)
    assert count == 0 or words(build_messages(CONVERSATION, passages[:count])) <= tokens_max
    if count < len(passages):
        assert words(build_messages(CONVERSATION, passages[: count + 1])) > tokens_max


@pytest.mark.parametrize(
    ("answer", "cited"),
    [
        ("At 100 degrees [1].", [1]),
        ("See [2] and [1].", [1, 2]),
        ("water BOILS at 100 degrees, they say", [1]),
        ("It boils at 10", []),  # two words in a row are chance
        ("Now we are at sea.", []),  # and so are short ones
        ("Water flows downhill towards valleys", []),  # one word of five
        ("At sea, Celsius degrees mean water level.", [1]),  # most of its longer words
        ("[12] [3] (1)", []),
        ("", []),
        ("I do not know.", []),
    ],
)
def test_a_passage_is_cited_by_number_or_by_what_an_answer_repeats(
    answer: str, cited: list[int]
) -> None:
    assert cited_passages(answer, [BOILING, FREEZING]) == cited


@given(st.text(), st.lists(st.text()))
def test_citations_name_passages_that_exist(answer: str, passages: list[str]) -> None:
    cited = cited_passages(answer, passages)
    assert cited == sorted(set(cited))
    assert set(cited) <= set(range(1, len(passages) + 1))
