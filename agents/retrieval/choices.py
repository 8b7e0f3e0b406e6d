"""Which serving variant a prompt gets: drawn where prompts are taken in, by the newest policy.

A prompt that sets one of the options on trial itself, or has `adapt` false, is left as it is. The
draw depends on the prompt's id and on the policy alone: read again, a prompt gets the same variant
unless the policy has changed meanwhile, and the finished record says which one it really had.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.adapting.settings import AdaptSettings
from agents.retrieval.questions import Question, question_text
from models.adapting.bandit import Bandit
from models.adapting.features import QUESTION_FEATURES, question_features
from models.adapting.policy import Estimates, Rule, draw, estimates_of, propensities
from models.adapting.variants import Variant, read_variants
from schemas import codec
from schemas.errors import EventInvalid
from schemas.events import Choice, Policy, Prompt
from schemas.topics import POLICIES
from streams.follower import Follower
from streams.records import Record
from streams.settings import KafkaSettings

_RETRIEVAL: Final = ("top_k", "score_floor")

log = logging.getLogger("headwater.choices")


class _Given(msgspec.Struct):
    """Which options a prompt's JSON names."""

    sampling: dict[str, msgspec.Raw] = {}
    retrieval: dict[str, msgspec.Raw] = {}


class Choices:
    """The variants on trial and the newest policy; `on` where there are any."""

    def __init__(self, kafka: KafkaSettings, settings: AdaptSettings) -> None:
        self._kafka = kafka
        self._variants = read_variants(settings.variants, settings.floor)
        self._tried = {name for variant in self._variants for name in variant.options}
        self._rule = Rule(floor=settings.floor, learns=False)
        self._version = 0
        self._estimates = self._unlearned()
        self._follower: Follower | None = None
        self.ready = asyncio.Event()

    @property
    def on(self) -> bool:
        return bool(self._variants)

    async def follow(self) -> None:
        """Take in each new policy, for ever."""
        if not self.on:
            self.ready.set()
            return
        self._follower = Follower(self._kafka, POLICIES, "earliest")
        await self._follower.catch_up(self._read)
        self.ready.set()
        await self._follower.feed(self._read)

    async def close(self) -> None:
        """Leave the broker."""
        if self._follower is not None:
            await self._follower.close()

    def take(self, policy: Policy) -> None:
        """Draw by this policy from now on; one of other variants is passed over."""
        arms = [arm.variant for arm in policy.arms]
        sizes = {len(arm.mean) for arm in policy.arms}
        if arms != [variant.name for variant in self._variants] or sizes != {QUESTION_FEATURES}:
            return
        means = [arm.mean for arm in policy.arms]
        covariances = [arm.covariance for arm in policy.arms]
        self._estimates = estimates_of(means, covariances)
        self._rule = Rule(floor=policy.floor, learns=policy.learns)
        self._version = policy.version

    def _read(self, record: Record) -> None:
        try:
            self.take(codec.decode(POLICIES, record.value or b""))
        except EventInvalid as error:
            log.warning("%s/%d: %s", record.topic, record.offset, error)

    def takes_part(self, question: Question) -> bool:
        """Whether a variant is to be drawn for a prompt."""
        if question.prompt is None or not self.on or not question.prompt.adapt:
            return False
        return not (self._tried & _set_options(question.taken.record.value or b""))

    def choose(self, question: Question, embedding: NDArray[np.float32]) -> Question:
        """The question with the options of a variant drawn for it, and that choice on record."""
        prompt = question.prompt
        assert prompt is not None
        features = question_features(question_text(prompt), len(prompt.messages), embedding)
        chances = propensities(self._estimates, np.array(features), self._rule)
        arm = draw(chances, question.prompt_id)
        variant = self._variants[arm]
        choice = Choice(variant.name, float(chances[arm]), self._version, variant.adapter, features)
        return replace(question, prompt=with_variant(prompt, variant), choice=choice)

    def _unlearned(self) -> Estimates:
        names = [variant.name for variant in self._variants]
        return Bandit(names, QUESTION_FEATURES).estimates()


def with_variant(prompt: Prompt, variant: Variant) -> Prompt:
    """A prompt with a variant's options."""
    options = variant.options
    found = {name: options[name] for name in _RETRIEVAL if name in options}
    replaced = msgspec.structs.replace
    sampling = prompt.sampling
    if variant.temperature is not None:
        sampling = replaced(sampling, temperature=variant.temperature)
    return replaced(prompt, retrieval=replaced(prompt.retrieval, **found), sampling=sampling)


def _set_options(value: bytes) -> set[str]:
    """The options that a prompt names. One that a writer left out for its default is not named."""
    given = msgspec.json.decode(value, type=_Given)
    return set(given.retrieval) & set(_RETRIEVAL) | set(given.sampling) & {"temperature"}
