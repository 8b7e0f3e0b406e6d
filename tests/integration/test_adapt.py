"""Feedback to a policy, verdicts, figures and quarantine, with join and adapt as processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from broker import own_river, running
from exchange_records import a_feedback, publish_exchanges
from outcomes import VARIANTS, an_outcome, publish_outcomes
from workers import agent_parts

from infra.evaluation.bandit_data import Logged, read_outcomes
from infra.evaluation.bandit_judged import evaluate_log
from infra.local_kafka import LocalKafka
from infra.part import Part
from infra.quarantine import Done, drop, release, waiting
from schemas.events import (
    LABEL_CONFUSION,
    LABEL_QUALITY,
    PROGRESSIVE,
    Outcome,
    Policy,
    Statistic,
    Verdict,
)
from schemas.topics import ANALYTICS, OUTCOMES, POLICIES, VERDICTS, Topic
from streams.settings import KafkaSettings
from streams.subscription import Subscription

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

HONEST = 60


def parts(kafka: KafkaSettings, folder: Path) -> list[Part]:
    env = {
        "HEADWATER_JOIN_FOLDER": str(folder / "join"),
        "HEADWATER_JOIN_PSEUDONYM_KEY_FILE": str(folder / "pseudonym.key"),
        "HEADWATER_ADAPT_FOLDER": str(folder / "adapt"),
        "HEADWATER_ADAPT_VARIANTS": VARIANTS,
        "HEADWATER_ADAPT_REPORT_INTERVAL_S": "0.5",
        "HEADWATER_LEARN_MECHANISM": "none",
    }
    found = agent_parts(kafka, "none", ("join", "adapt"))
    return [replace(part, env={**part.env, **env}) for part in found]


async def until(
    kafka: KafkaSettings, topic: Topic, enough: Callable[[list[Any]], bool]
) -> list[Any]:
    """The events of a topic, once there are enough."""
    found: list[Any] = []
    async with asyncio.timeout(60), Subscription(kafka, topic, since="earliest") as events:
        async for event in events:
            found.append(event)
            if enough(found):
                break
    return found


def quarantine(kafka: KafkaSettings, *arguments: str) -> list[dict[str, Any]]:
    """What `headwater quarantine … --json` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", "quarantine", *arguments, "--json"],
        env=os.environ
        | {
            "HEADWATER_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "HEADWATER_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


async def feed(kafka: KafkaSettings) -> tuple[list[Outcome], list[Verdict], list[Statistic]]:
    feedback = [
        a_feedback("p1"),
        a_feedback("p2", correction=None, rating=1.0),
        a_feedback("p3", correction=None, labels={"intent": "a", "intent.predicted": "b"}),
    ]
    await publish_exchanges(kafka, ["p1", "p2", "p3"], feedback)
    joined = await until(kafka, OUTCOMES, lambda found: len(found) == 3)
    await publish_outcomes(kafka, map(an_outcome, range(HONEST)))
    spam = [an_outcome(100 + n, user="spammer", at_ms=1_070_000) for n in range(40)]
    await publish_outcomes(kafka, spam)
    verdicts = await until(kafka, VERDICTS, lambda found: len(found) == 103)
    figures = await until(
        kafka,
        ANALYTICS,
        lambda found: any(
            s.name == PROGRESSIVE and s.values.get("quarantined", 0) > 0 for s in found
        ),
    )
    return joined, verdicts, figures


async def labels_told(kafka: KafkaSettings, version: str, count: int) -> dict[str, Statistic]:
    """Of one version's label `intent`, once so many answers are counted: by name and class."""

    def of_version(found: list[Statistic]) -> dict[str, Statistic]:
        names = {LABEL_QUALITY, LABEL_CONFUSION}
        wanted = {"label": "intent", "model_version": version}
        return {
            "/".join([one.name, *filter(None, [one.labels.get("class")])]): one
            for one in found
            if one.name in names and wanted.items() <= one.labels.items()
        }

    def enough(found: list[Statistic]) -> bool:
        told = of_version(found)
        confusion, classes = told.pop(LABEL_CONFUSION, None), told
        overall = classes.pop(LABEL_QUALITY, None)
        return (
            confusion is not None
            and overall is not None
            and overall.values["count"] == sum(confusion.values.values()) == count
            and sum(one.values["count"] for one in classes.values()) == count
        )

    return of_version(await until(kafka, ANALYTICS, enough))


def check_labels(told: dict[str, Statistic]) -> None:
    """Against counting by hand what honest users said."""
    honest = map(an_outcome, range(HONEST))
    pairs = [(one.labels["intent"], one.predicted["intent"]) for one in honest]
    cells = Counter(f"{truth} → {predicted}" for truth, predicted in pairs)
    assert told[LABEL_CONFUSION].values == cells
    right = Counter(truth for truth, predicted in pairs if truth == predicted)
    truths, guesses = Counter(t for t, _ in pairs), Counter(p for _, p in pairs)
    quality = told[LABEL_QUALITY].values
    assert quality["count"] == len(pairs)
    assert quality["accuracy"] == pytest.approx(right.total() / len(pairs))
    for name in truths:
        found = told[f"{LABEL_QUALITY}/{name}"].values
        assert found["precision"] == pytest.approx(right[name] / guesses[name])
        assert found["recall"] == pytest.approx(right[name] / truths[name])
        assert found["f1"] == pytest.approx(2 * right[name] / (guesses[name] + truths[name]))


async def newest_policy(kafka: KafkaSettings, version: int) -> Policy:
    return (await until(kafka, POLICIES, lambda found: found[-1].version >= version))[-1]


def test_feedback_becomes_a_policy_and_spam_waits_for_an_operator(
    broker: LocalKafka, tmp_path: Path
) -> None:
    kafka = own_river(broker.address)
    with running(parts(kafka, tmp_path), tmp_path):
        joined, verdicts, figures = asyncio.run(feed(kafka))
        by_prompt = {outcome.prompt_id: outcome for outcome in joined}
        assert [by_prompt[name].reward for name in ("p1", "p2", "p3")] == [-0.5, 1.0, None]
        assert by_prompt["p3"].predicted == {"intent": "b"}
        assert by_prompt["p3"].example is None
        assert by_prompt["p1"].example is not None
        assert by_prompt["p1"].features["passages"] == 0.0

        held = {v.outcome_id for v in verdicts if v.decision == "quarantined"}
        assert held <= {f"outcome-{100 + n}" for n in range(40)}
        listed = quarantine(kafka, "list")
        assert {verdict["outcome_id"] for verdict in listed} == held
        assert listed[0]["outcome"]["user"] == "spammer"
        assert {"reward_model", "bandit", "guard"} <= {
            statistic.labels.get("learner") for statistic in figures
        }

        check_labels(asyncio.run(labels_told(kafka, "default-0", HONEST)))

        own_log = asyncio.run(read_outcomes(kafka))
        assert isinstance(own_log, Logged)
        judged = evaluate_log(own_log)["estimates"]
        assert judged["always wide"]["snips"]["low"] > judged["always usual"]["snips"]["high"]

        learned = 60 + 40 - len(held)
        first, second = sorted(held)[:2]
        assert asyncio.run(release(kafka, [first, "nobody"])) == [
            Done(first, True),
            Done("nobody", False, "it is not in quarantine"),
        ]
        policy = asyncio.run(newest_policy(kafka, learned + 1))
        assert policy.version == learned + 1
        assert asyncio.run(drop(kafka, [second])) == [Done(second, True)]
        assert set(asyncio.run(waiting(kafka))) == held - {first, second}
