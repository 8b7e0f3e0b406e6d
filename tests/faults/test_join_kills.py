"""Whatever is killed when, each piece of feedback becomes one example."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from broker import own_river, running
from exchange_records import a_feedback, publish_exchanges
from fixtures import RunningBroker
from stage import SETTLE_S, Stage, kill, until
from workers import agent_parts

from schemas import codec, ids
from schemas.topics import DEAD_LETTERS, EXAMPLES

pytestmark = [pytest.mark.integration, pytest.mark.asyncio, pytest.mark.timeout(240)]

PROMPTS = 300
KILLS = 4


@pytest.fixture(scope="module")
def joining(
    running_broker: RunningBroker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    river = own_river(running_broker.node.address)
    folder = tmp_path_factory.mktemp("joining")
    env = {
        "HEADWATER_JOIN_FOLDER": str(folder / "join"),
        "HEADWATER_JOIN_PSEUDONYM_KEY_FILE": str(folder / "pseudonym.key"),
    }
    parts = [replace(p, env={**p.env, **env}) for p in agent_parts(river, "none", ("join",))]
    with running(parts, folder) as workers:
        yield Stage(river, workers, running_broker.supervisor, parts, folder)


async def examples(stage: Stage) -> Counter[str]:
    found = [
        codec.decode(EXAMPLES, record.value or b"") for record in await stage.records(EXAMPLES)
    ]
    return Counter(example.example_id for example in found)


@pytest.mark.long
async def test_kill_9_under_load_loses_and_doubles_no_feedback(joining: Stage) -> None:
    prompts = [f"kill-{number}" for number in range(PROMPTS)]
    # Everybody says something twice, and everything is sent twice.
    feedback = [a_feedback(prompt, number) for number in (0, 1, 0, 1) for prompt in prompts]
    expected = {ids.example_id(f.prompt_id or "", f.feedback_id or "") for f in feedback}
    publishing = asyncio.create_task(publish_exchanges(joining.kafka, prompts, feedback))
    for kills in range(1, KILLS + 1):

        async def some_more(least: int = kills * PROMPTS // KILLS) -> bool:
            return len(await examples(joining)) >= least

        await until(some_more)
        if kills == KILLS:
            # Another machine has nothing but the changelog.
            shutil.rmtree(joining.folder / "join")
        await kill(joining.workers, "join")
    await publishing

    async def all_there() -> bool:
        return len(await examples(joining)) >= len(expected)

    await until(all_there)
    await asyncio.sleep(SETTLE_S)  # for examples too many, which nothing announces
    found = await examples(joining)
    assert set(found) == expected
    assert set(found.values()) == {1}
    assert not await joining.records(DEAD_LETTERS)
