"""adapt killed over and over ends as one that nobody disturbed, bit for bit."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import adapt_run
import numpy as np
import pytest
from broker import own_river, running
from outcomes import VARIANTS, adapting, an_outcome, publish_outcomes
from stage import kill
from workers import agent_parts

from infra.local_kafka import LocalKafka
from infra.supervisor import Supervisor
from models.adapting.policy import Rule, draw, estimates_of, propensities
from schemas.events import Policy, Verdict
from schemas.topics import POLICIES, VERDICTS, Topic
from streams.settings import KafkaSettings
from streams.subscription import Subscription

EVENTS = 600
KILLS = 8


def undisturbed(folder: Path, events: int) -> tuple[bytes, Policy]:
    """State and policy after as many outcomes, without a restart."""
    learners = adapting(folder)
    for number in range(events):
        learners.add(an_outcome(number), number)
    found = learners.encoded(), learners.policy()
    learners.close()
    assert found[1] is not None
    return found[0], found[1]


def kept(folder: Path) -> tuple[int, bytes, Policy]:
    learners = adapting(folder)
    policy = learners.policy()
    found = learners.next_offset, learners.encoded(), policy
    learners.close()
    assert policy is not None
    return found[0], found[1], policy


def choices(policy: Policy) -> list[int]:
    """What the next prompts would get."""
    estimates = estimates_of(
        [arm.mean for arm in policy.arms], [arm.covariance for arm in policy.arms]
    )
    rule = Rule(floor=policy.floor)
    found = []
    for number in range(EVENTS, EVENTS + 200):
        choice = an_outcome(number).choice
        assert choice is not None
        chances = propensities(estimates, np.array(choice.features), rule)
        found.append(draw(chances, f"prompt-{number}"))
    return found


@pytest.mark.long
@pytest.mark.timeout(240)
def test_killed_learners_end_with_the_same_state_and_choose_the_same(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            adapt_run.__file__,
            str(tmp_path / "killed"),
            f"{EVENTS}",
            f"{KILLS}",
            "5",
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == KILLS
    state, policy = undisturbed(tmp_path / "calm", EVENTS)
    offset, killed_state, killed_policy = kept(tmp_path / "killed")
    assert offset == EVENTS
    assert killed_state == state
    assert killed_policy == policy
    assert choices(killed_policy) == choices(policy)


async def until(
    kafka: KafkaSettings, topic: Topic, enough: Callable[[list[Any]], bool]
) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(90), Subscription(kafka, topic, since="earliest") as events:
        async for event in events:
            found.append(event)
            if enough(found):
                break
    return found


async def disturb(kafka: KafkaSettings, supervisor: Supervisor) -> list[Verdict]:
    """Outcomes in five parts, and a kill while each is learned from."""
    for part in range(5):
        first = part * EVENTS // 5
        numbers = range(first, first + EVENTS // 5)
        publishing = asyncio.create_task(publish_outcomes(kafka, map(an_outcome, numbers)))
        await asyncio.sleep(0.05)
        await kill(supervisor, "adapt")
        await publishing
    verdicts = await until(
        kafka, VERDICTS, lambda found: len({v.outcome_id for v in found}) == EVENTS
    )
    learned = len({v.outcome_id for v in verdicts if v.decision == "accepted" and v.weight > 0.0})
    await until(kafka, POLICIES, lambda found: found[-1].version >= learned)
    return verdicts


@pytest.mark.long
@pytest.mark.integration
@pytest.mark.timeout(240)
def test_a_killed_agent_ends_with_the_same_state_and_says_the_same_twice(
    broker: LocalKafka, tmp_path: Path
) -> None:
    kafka = own_river(broker.address)
    env = {
        "HEADWATER_ADAPT_FOLDER": str(tmp_path / "killed"),
        "HEADWATER_ADAPT_VARIANTS": VARIANTS,
        "HEADWATER_ADAPT_FLOOR": "0.1",
        "HEADWATER_LEARN_MECHANISM": "none",
    }
    parts = [replace(p, env={**p.env, **env}) for p in agent_parts(kafka, "none", ("adapt",))]
    with running(parts, tmp_path) as supervisor:
        verdicts = asyncio.run(disturb(kafka, supervisor))
    # Done again after a kill, an outcome gets the same verdict.
    assert all(v == w for v in verdicts for w in verdicts if v.outcome_id == w.outcome_id)
    state, policy = undisturbed(tmp_path / "calm", EVENTS)
    offset, killed_state, killed_policy = kept(tmp_path / "killed")
    assert offset == EVENTS
    assert killed_state == state
    assert choices(killed_policy) == choices(policy)
