"""Which prompts take part in a trial of variants, and what a variant changes of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from agents.adapting.settings import AdaptSettings, guards_learning
from agents.gateway.openai.prompts import leaves_options
from agents.gateway.openai.requests import ChatRequest
from agents.generation.draft import Draft, make_request
from agents.learning.taken_examples import let_through
from agents.retrieval.choices import Choices
from agents.retrieval.contexts import context_record
from agents.retrieval.questions import Question
from agents.settings import LearnSettings
from models.adapting.features import QUESTION_FEATURES
from schemas import codec
from schemas.errors import SettingsInvalid
from schemas.events import (
    ArmEstimate,
    Context,
    Example,
    Message,
    Outcome,
    Policy,
    Prompt,
    Sampling,
    Verdict,
)
from schemas.topics import CONTEXTS
from streams.records import Record
from streams.settings import KafkaSettings

VARIANTS = """[{"name": "usual"}, {"name": "bold", "top_k": 9, "score_floor": 0.2,
                "temperature": 0.7, "adapter": "candidate"}]"""
EMBEDDING = np.full(384, 384**-0.5, dtype=np.float32)


def choices(**settings: object) -> Choices:
    given = {"variants": VARIANTS, "floor": 0.1} | settings
    return Choices(KafkaSettings(), AdaptSettings.model_validate(given))


def question(number: int = 0, value: bytes | None = None, **fields: Any) -> Question:
    prompt = Prompt([Message("user", "How deep is the river?")], f"prompt-{number}", **fields)
    record = Record("prompts", 0, number, None, value or codec.encode(prompt), [], 1)
    return Question(SimpleNamespace(record=record), f"prompt-{number}", prompt)  # type: ignore[arg-type]


def test_a_prompt_gets_all_options_of_its_variant_and_the_record_says_so() -> None:
    drawn = [choices().choose(question(number), EMBEDDING) for number in range(200)]
    bold = [q for q in drawn if q.choice and q.choice.variant == "bold"]
    usual = [q for q in drawn if q.choice and q.choice.variant == "usual"]
    assert len(bold) + len(usual) == 200
    # Nothing was learned yet: the floor is all that `bold` has.
    assert 8 <= len(bold) <= 35
    for one in bold:
        assert one.prompt is not None
        assert one.choice is not None
        retrieval = one.prompt.retrieval
        assert (retrieval.top_k, retrieval.score_floor) == (9, 0.2)
        assert one.prompt.sampling.temperature == 0.7
        assert one.choice.propensity == pytest.approx(0.1)
        assert len(one.choice.features) == QUESTION_FEATURES
    assert usual[0].prompt == question(int(usual[0].prompt_id.rpartition("-")[2])).prompt
    # Read again after a crash, a prompt gets the same.
    assert choices().choose(question(7), EMBEDDING).choice == drawn[7].choice


@pytest.mark.parametrize(
    "value",
    [
        {"retrieval": {"top_k": 4}},
        {"retrieval": {"score_floor": None}},
        {"sampling": {"temperature": 0}},
    ],
)
def test_a_prompt_that_sets_an_option_itself_is_never_overridden(value: dict[str, object]) -> None:
    named = msgspec.json.encode({"messages": [{"role": "user", "content": "Hm?"}]} | value)
    assert not choices().takes_part(question(value=named))


def test_options_that_are_not_on_trial_do_not_matter_and_adapt_false_does() -> None:
    assert choices().takes_part(question(sampling=Sampling(max_tokens=9)))
    assert not choices().takes_part(question(adapt=False))
    assert not choices(variants="").takes_part(question())


def test_the_newest_policy_decides_and_one_of_other_variants_does_not() -> None:
    drawing = choices()
    sure = [0.0] * QUESTION_FEATURES**2
    arms = [
        ArmEstimate("usual", [-0.5] + [0.0] * (QUESTION_FEATURES - 1), sure),
        ArmEstimate("bold", [0.9] + [0.0] * (QUESTION_FEATURES - 1), sure),
    ]
    drawing.take(Policy("variants", 8, 1, 0.1, arms))
    chosen = [drawing.choose(question(number), EMBEDDING).choice for number in range(100)]
    assert sum(choice is not None and choice.variant == "bold" for choice in chosen) > 75
    assert all(choice is not None and choice.policy_version == 8 for choice in chosen)
    drawing.take(Policy("variants", 9, 1, 0.1, arms[::-1]))
    later = drawing.choose(question(0), EMBEDDING).choice
    assert later is not None
    assert later.policy_version == 8


def test_the_context_carries_the_choice_and_generate_asks_the_variants_adapter() -> None:
    drawing = choices()
    bold = next(
        found
        for number in range(200)
        if (found := drawing.choose(question(number), EMBEDDING)).choice
        and found.choice.variant == "bold"
    )
    outgoing = context_record(bold, [])
    context: Context = codec.decode(CONTEXTS, outgoing.value or b"")
    assert context.choice == bold.choice
    engine = SimpleNamespace(context_tokens_max=512, count_tokens=lambda messages: 10)
    draft = Draft(context, "tiny", "base", 1)
    request = make_request(draft, engine, 1)  # type: ignore[arg-type]
    assert (request.adapter, request.sampling.temperature) == ("candidate", 0.7)
    assert draft.finished().choice == bold.choice


def test_the_guard_stays_off_beside_private_learning_unless_an_operator_says_so() -> None:
    private, plain = LearnSettings(mechanism="gaussian"), LearnSettings(mechanism="none")
    guarded = AdaptSettings(guard_learning=True)
    with pytest.raises(SettingsInvalid, match="gaussian"):
        guards_learning(guarded, private)
    assert guards_learning(guarded, plain)
    assert guards_learning(AdaptSettings(guard_learning=True, beside_privacy=True), private)
    assert not guards_learning(AdaptSettings(), plain)


def test_the_learner_takes_what_the_guard_let_through_and_nothing_else() -> None:
    example = Example("e1", "user-1", "p1", "g1", "base", [Message("user", "Hm?")], "Yes.")
    outcome = Outcome("e1", "user-1", "p1", "g1", "base", 1, example=example)
    assert let_through(Verdict("e1", 1, "accepted", weight=0.4, outcome=outcome)) == (example, 0.4)
    assert let_through(Verdict("e1", 1, "released", outcome=outcome)) == (example, 1.0)
    for decision, weight in (("quarantined", 1.0), ("dropped", 0.0), ("accepted", 0.0)):
        verdict = Verdict("e1", 1, decision, weight=weight, outcome=outcome)  # type: ignore[arg-type]
        assert let_through(verdict)[0] is None
    labels_alone = msgspec.structs.replace(outcome, example=None)
    assert let_through(Verdict("e1", 1, "accepted", outcome=labels_alone))[0] is None


def test_the_gateway_says_when_an_option_is_named_that_the_prompt_would_not_show() -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "Hm?"}]}
    named = [{"temperature": 0.0}, {"retrieval": {"top_k": 4}}]
    seen = [{}, {"temperature": 0.7}, {"retrieval": {"top_k": 6}}]
    assert all(leaves_options(ChatRequest.model_validate(asked | one)) for one in seen)
    assert not any(leaves_options(ChatRequest.model_validate(asked | one)) for one in named)
