"""The part of the demonstration that learns: a panel teaches until two versions went live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from infra.commands.shell import out
from infra.demo.panel import ask_all, give_feedback, mean_reward, serving_version
from infra.demo.questions import questions
from schemas.errors import WorkerFailed
from schemas.events import LEARNING_ROUND, Statistic
from streams.client import Client

# Small, so that a demonstration has time for some; the README says what it costs.
COHORT_SIZE: Final = 16
LEARNING_ENV: Final = {"HEADWATER_LEARN_COHORT_SIZE": str(COHORT_SIZE)}
_COHORTS_MAX: Final = 4
_RELEASES_WANTED: Final = 2
HELD_OUT: Final = 24
_ROUND_S_MAX: Final = 120.0
_SWAP_S_MAX: Final = 30.0


async def teach(client: Client) -> dict[str, Any]:
    """Reward on held-out questions, cohorts of feedback, and the reward again; with the cost."""
    out.rule("Feedback makes a better model", align="left", style="bold")
    held_out, panel = questions("held-out")[:HELD_OUT], questions("panel")
    before = await ask_all(client, held_out)
    out.print(f"reward on {len(held_out)} held-out questions: {mean_reward(before):.3f}")
    rounds: list[dict[str, Any]] = []
    async with aclosing(_rounds(client)) as statistics:
        # The subscription is open once its first element is asked for.
        following = asyncio.ensure_future(anext(statistics))
        while sum(found["released"] for found in rounds) < _RELEASES_WANTED:
            if len(rounds) == _COHORTS_MAX:
                break
            users = panel[len(rounds) * COHORT_SIZE :][:COHORT_SIZE]
            await give_feedback(client, await ask_all(client, users))
            given = time.monotonic()
            rounds.append(_told(await _in_time(following), time.monotonic() - given))
            following = asyncio.ensure_future(anext(statistics))
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    released = [found["version"] for found in rounds if found["released"]]
    if released:
        await _until_served(client, released[-1])
    after = await ask_all(client, held_out)
    out.print(f"reward on the same questions now: {mean_reward(after):.3f}\n")
    return {
        "reward_before": round(mean_reward(before), 4),
        "reward_after": round(mean_reward(after), 4),
        "version": after[-1].generation.model_version,
        "versions_released": len(released),
        "epsilon_spent": rounds[-1]["epsilon"],
        "rounds": rounds,
    }


async def _until_served(client: Client, version: str) -> None:
    async with asyncio.timeout(_SWAP_S_MAX):
        while await serving_version(client) != version:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def _rounds(client: Client) -> AsyncGenerator[Statistic, None]:
    """What learn tells of each round."""
    async for statistic in client.subscribe("analytics", since="earliest"):
        if statistic.name == LEARNING_ROUND:
            yield statistic


async def _in_time(following: asyncio.Future[Statistic]) -> Statistic:
    try:
        async with asyncio.timeout(_ROUND_S_MAX):
            return await following
    except TimeoutError:
        raise WorkerFailed(
            f"No round of learning ended within {_ROUND_S_MAX:g} s.",
            "See the end of learn's log; is the machine busy with something else?",
        ) from None


def _told(statistic: Statistic, seconds: float) -> dict[str, Any]:
    values, labels = statistic.values, statistic.labels
    released = labels["released"] == "true"
    epsilon = values.get("epsilon")
    spent = (
        "unprotected" if epsilon is None else f"ε {epsilon:.2f} of {values['epsilon_limit']:.2f}"
    )
    out.print(
        f"{COHORT_SIZE} people taught {labels['model_version']} in {seconds:.1f} s: loss "
        f"{values.get('gate_loss_live', 0.0):.3f} → {values.get('gate_loss', 0.0):.3f}, "
        f"{'live' if released else 'not released'}, {spent}"
    )
    return {
        "version": labels["model_version"],
        "released": released,
        "seconds": round(seconds, 2),
        "epsilon": epsilon,
        "gate_loss": values.get("gate_loss"),
        "gate_loss_live": values.get("gate_loss_live"),
    }
