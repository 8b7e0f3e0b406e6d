"""Variants on trial, from prompts to a policy: the agents that answer, join and adapt together."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from broker import own_river, running
from workers import agent_parts

from infra.local_kafka import LocalKafka
from schemas.events import Feedback, Generation, Policy, Retrieval, Sampling
from schemas.topics import POLICIES
from streams.client import Client
from streams.settings import KafkaSettings
from streams.subscription import Subscription

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(240)]

PROMPTS = 40
VARIANTS = """[{"name": "usual"}, {"name": "warm", "temperature": 0.9},
               {"name": "candidate", "adapter": "candidate"}]"""
SHORT = Sampling(max_tokens=4)


async def answered(client: Client, **options: object) -> Generation:
    answer = await client.ask("How deep is the river?", **options)  # type: ignore[arg-type]
    return await answer.finished()


async def teach(kafka: KafkaSettings) -> tuple[list[Generation], Policy]:
    """Everybody likes what is warm."""
    async with Client(kafka) as client:
        found = await asyncio.gather(*(answered(client, sampling=SHORT) for _ in range(PROMPTS)))
        for number, generation in enumerate(found):
            choice = generation.choice
            assert choice is not None
            liked = 1.0 if choice.variant == "warm" else -0.5
            rating = Feedback(generation.prompt_id, user_id=f"user {number}", rating=liked)
            await client.feedback(rating)
        async with asyncio.timeout(60), Subscription(kafka, POLICIES, since="earliest") as events:
            async for policy in events:
                if policy.version == PROMPTS:
                    return found, policy
    raise AssertionError("unreachable")


async def afterwards(kafka: KafkaSettings, prefix: str) -> tuple[list[Generation], Generation]:
    """Answers under the policy that was learned, and one to a prompt that names its options."""
    async with Client(kafka) as client:
        found = [
            await answered(client, sampling=SHORT, prompt_id=f"{prefix}-{number}")
            for number in range(20)
        ]
        named = Sampling(max_tokens=4, temperature=0.2)
        fixed = await answered(client, sampling=named, retrieval=Retrieval(top_k=2))
    return found, fixed


def test_a_variant_that_people_like_serves_more_and_no_prompt_is_overridden(
    broker: LocalKafka, tiny_model: Path, tmp_path: Path
) -> None:
    kafka = own_river(broker.address)
    env = {
        "HEADWATER_JOIN_FOLDER": str(tmp_path / "join"),
        "HEADWATER_JOIN_PSEUDONYM_KEY_FILE": str(tmp_path / "pseudonym.key"),
        "HEADWATER_ADAPT_FOLDER": str(tmp_path / "adapt"),
        "HEADWATER_ADAPT_VARIANTS": VARIANTS,
        "HEADWATER_ADAPT_FLOOR": "0.2",
        "HEADWATER_LEARN_MECHANISM": "none",
    }
    names = ("retrieve", "generate", "join", "adapt")
    parts = [replace(p, env={**p.env, **env}) for p in agent_parts(kafka, tiny_model, names)]
    with running(parts, tmp_path):
        before, policy = asyncio.run(teach(kafka))
        after, fixed = asyncio.run(afterwards(kafka, "later"))
    chosen = [generation.choice for generation in before if generation.choice]
    assert {choice.policy_version for choice in chosen} == {0}
    assert sorted({round(choice.propensity, 6) for choice in chosen}) == [0.2, 0.6]
    assert {choice.variant for choice in chosen} == {"usual", "warm", "candidate"}
    # The candidate has no version yet: the model without an adapter answers.
    assert {generation.model_version for generation in before} == {"base"}
    assert [arm.variant for arm in policy.arms] == ["usual", "warm", "candidate"]
    warm = [g.choice for g in after if g.choice and g.choice.variant == "warm"]
    assert len(warm) >= 5
    assert max(choice.propensity for choice in warm) > 0.5
    assert fixed.choice is None
