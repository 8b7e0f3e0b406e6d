"""What becomes of a prompt, its answer and feedback on it, in whatever order they come."""

from __future__ import annotations

import msgspec
import pytest
from exchange_records import a_context, a_feedback, a_generation

from agents.joining.exchange import (
    Exchange,
    answered,
    asked,
    decode_feedback,
    make_example,
    teaches,
)
from agents.joining.pseudonyms import Pseudonyms
from schemas import codec, ids
from schemas.errors import EventInvalid, SettingsInvalid
from schemas.events import Example, Feedback, TokenLogprob
from schemas.topics import EXAMPLES
from streams.records import Record

NAMES = Pseudonyms(b"k" * 32)


def whole(text: str = "Deep.", **asker: str | None) -> Exchange:
    return answered(asked(Exchange(0, 1), a_context("p1")), a_generation("p1", text, **asker))


def example(feedback: Feedback, exchange: Exchange) -> Example:
    return make_example(exchange, "p1", "f1", feedback, NAMES)


def a_record(feedback: Feedback, *headers: tuple[str, bytes]) -> Record:
    return Record("feedback", 2, 7, b"p1", codec.encode(feedback), list(headers), 1)


def test_an_example_holds_what_the_model_was_asked_said_and_should_have_said() -> None:
    found = example(a_feedback("p1", rating=0.5), whole())
    # The passage that it was shown, before the question.
    assert "nine metres" in found.messages[-1].content
    assert found.messages[-1].content.endswith("How deep is p1?")
    assert (found.completion, found.reward) == ("Deep.", 0.5)
    assert found.correction == "p1 is nine metres deep."
    assert found.generation_id == ids.generation_id("p1")
    assert codec.decode(EXAMPLES, codec.checked(EXAMPLES, found)) == found


def test_what_the_reward_model_reads_is_taken_from_the_finished_record() -> None:
    sketch = [n / 16 for n in range(16)]
    logprobs = [TokenLogprob("a", -0.5), TokenLogprob("b", -1.5)]
    generation = msgspec.structs.replace(
        a_generation("p1"), prompt_sketch=sketch, logprobs=logprobs
    )
    found = answered(Exchange(0, 1), generation).answered
    assert found is not None
    features = found.features
    assert [features[f"embedding_{n}"] for n in range(16)] == sketch
    assert (features["logprob_mean"], features["logprob_least"]) == (-1.0, -1.5)
    # What is not known is left out: a 0 would say something.
    bare = answered(Exchange(0, 1), a_generation("p1")).answered
    assert bare is not None and not {"embedding_0", "logprob_mean"} & bare.features.keys()


def test_the_order_of_arrival_does_not_matter() -> None:
    context, generation = a_context("p1"), a_generation("p1")
    one = answered(asked(Exchange(0, 1), context), generation)
    other = asked(answered(Exchange(0, 1), generation), context)
    assert one == other
    assert one.complete
    assert not asked(Exchange(0, 1), context).complete


def test_the_same_feedback_makes_the_same_example_and_other_feedback_another() -> None:
    assert ids.example_id("p1", "f1") == ids.example_id("p1", "f1")
    others = [("p1", "f2"), ("p2", "f1"), ("p1\0f", "1")]
    assert len({ids.example_id("p1", "f1"), *(ids.example_id(*pair) for pair in others)}) == 4


@pytest.mark.parametrize(
    ("headers", "named", "expected"),
    [
        ([("ce_id", b"e1"), ("ce_source", b"/app")], "f1", "f1"),
        ([("ce_id", b"e1"), ("ce_source", b"/app")], None, "/app#e1"),
        ([], None, "feedback-2-7"),
    ],
)
def test_feedback_is_known_by_its_own_id_its_events_or_its_place(
    headers: list[tuple[str, bytes]], named: str | None, expected: str
) -> None:
    record = a_record(Feedback("p1", named, rating=1.0), *headers)
    assert decode_feedback(record)[0] == expected


def test_labels_alone_and_a_rating_of_nothing_teach_nothing() -> None:
    assert teaches(Feedback("p1", rating=-0.1))
    assert teaches(Feedback("p1", correction="Nine metres."))
    assert not teaches(Feedback("p1", rating=0.0))
    assert not teaches(Feedback("p1", labels={"seen": "yes"}))


def test_an_empty_answer_can_be_corrected_but_not_rated() -> None:
    assert example(a_feedback("p1"), whole("")).completion == ""
    with pytest.raises(EventInvalid, match="without text"):
        example(Feedback("p1", "f1", rating=1.0), whole(""))


def test_who_gave_feedback_is_one_person_under_a_name_that_tells_nothing() -> None:
    ann, again = (example(Feedback("p1", f, "ann", 1.0), whole()) for f in ("f1", "f2"))
    assert ann.user == again.user
    assert ann.user.startswith("user-")
    assert "ann" not in ann.user
    assert ann.user != example(Feedback("p1", "f1", "bob", 1.0), whole()).user
    assert ann.user != Pseudonyms(b"x" * 32).of(user="ann", conversation=None, prompt="p1")


def test_without_a_user_the_asker_then_the_conversation_then_the_prompt_stands_for_one() -> None:
    feedback = Feedback("p1", "f1", rating=1.0)
    asker = example(feedback, whole(user_id="ann", conversation_id="c1"))
    assert asker.user == NAMES.of(user="ann", conversation=None, prompt="p9")
    conversation = example(feedback, whole(conversation_id="ann"))
    assert conversation.user.startswith("conversation-")
    assert conversation.user != asker.user
    assert example(feedback, whole()).user.startswith("prompt-")


def test_a_short_key_is_refused_and_no_key_is_printed() -> None:
    with pytest.raises(SettingsInvalid, match="16 or more"):
        Pseudonyms(b"short")
    assert "kkkk" not in repr(NAMES)
