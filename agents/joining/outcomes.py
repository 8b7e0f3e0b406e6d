"""Feedback and its answer as what adapts learns from: numbers and fingerprints."""

from __future__ import annotations

from agents.joining.exchange import Exchange
from agents.joining.pseudonyms import Pseudonyms
from models.adapting.features import fingerprint, length_feature
from models.judging.predictions import predicted_labels
from schemas import ids
from schemas.errors import EventInvalid
from schemas.events import Example, Feedback, Outcome

# An answer that had to be corrected was not good; how bad it was nobody said.
CORRECTED_REWARD = -0.5


def make_outcome(
    exchange: Exchange,
    prompt_id: str,
    feedback_id: str,
    feedback: Feedback,
    example: Example | None,
    names: Pseudonyms,
    at_ms: int,
) -> Outcome:
    """One piece of feedback on a known answer; raises EventInvalid where the answer is not known.

    `at_ms` is the broker's time of the feedback.
    """
    answer, messages = exchange.answered, exchange.messages
    if answer is None or messages is None:
        raise EventInvalid(
            f"The answer to {prompt_id[:80]} is not known.", "Publish the feedback again later."
        )
    asked, user = messages[-1].content, feedback.user_id or answer.user_id
    return Outcome(
        outcome_id=ids.example_id(prompt_id, feedback_id),
        user=names.of(user=user, conversation=answer.conversation_id, prompt=prompt_id),
        prompt_id=prompt_id,
        generation_id=answer.generation_id,
        model_version=answer.model_version,
        at_ms=at_ms,
        reward=reward_of(feedback),
        corrected=feedback.correction is not None,
        labels=feedback.labels,
        predicted=predicted_labels(feedback.labels, answer.text),
        features={**answer.features, "question_chars": length_feature(asked)},
        answer_fingerprint=fingerprint(f"{asked}\n{answer.text}"),
        correction_fingerprint=fingerprint(feedback.correction or ""),
        choice=answer.choice,
        example=example,
    )


def reward_of(feedback: Feedback) -> float | None:
    """The rating; a correction without one counts as -0.5, labels alone say nothing."""
    if feedback.rating is None and feedback.correction is not None:
        return CORRECTED_REWARD
    return feedback.rating
