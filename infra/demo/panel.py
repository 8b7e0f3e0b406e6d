"""Simulated people who ask about the standard library, rate the answers and correct them.

Each of them asks one question, whose document the river holds, and knows the first sentence of its
docstring: that is the correction. The rating is how much of it the answer says, by words.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from infra.demo.questions import DocQuestion
from models.prompting import words
from schemas.events import Feedback, Generation, Retrieval, Sampling
from streams.client import Client

_ANSWER_TOKENS_MAX: Final = 40


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and its finished answer."""

    question: DocQuestion
    generation: Generation

    @property
    def reward(self) -> float:
        """From 0 to 1."""
        return overlap(self.generation.text, self.question.answer)


async def ask_all(client: Client, questions: Sequence[DocQuestion]) -> list[Asked]:
    """Ask all of them at once, each as a user of their own."""

    async def ask(found: DocQuestion) -> Asked:
        answer = await client.ask(
            found.question,
            sampling=Sampling(max_tokens=_ANSWER_TOKENS_MAX),
            retrieval=Retrieval(top_k=1),
            user_id=f"panel/{found.name}",
        )
        return Asked(found, await answer.finished())

    return list(await asyncio.gather(*(ask(found) for found in questions)))


async def serving_version(client: Client) -> str:
    """The version that a new answer, of one token, comes from."""
    answer = await client.ask("Who?", sampling=Sampling(max_tokens=1), retrieval=Retrieval(top_k=0))
    return (await answer.finished()).model_version


async def give_feedback(client: Client, answers: Sequence[Asked]) -> None:
    """A rating in [-1, 1] and a correction for each answer."""
    feedback = [
        Feedback(
            prompt_id=asked.generation.prompt_id,
            user_id=f"panel/{asked.question.name}",
            rating=2.0 * asked.reward - 1.0,
            correction=asked.question.answer,
        )
        for asked in answers
    ]
    await asyncio.gather(*(client.feedback(item) for item in feedback))


def mean_reward(answers: Sequence[Asked]) -> float:
    """From 0 to 1."""
    return statistics.fmean(asked.reward for asked in answers)


def overlap(answer: str, wanted: str) -> float:
    """F1 of the words of both, each counted once."""
    said, meant = set(words(answer)), set(words(wanted))
    shared = len(said & meant)
    return 2.0 * shared / (len(said) + len(meant)) if shared else 0.0
