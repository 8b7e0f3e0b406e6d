"""A cancel acts at once, also where more prompts wait than a worker takes on."""

from __future__ import annotations

import time

import pytest
from stage import Stage, a_context, until

from agents.settings import GenerateSettings
from schemas import codec
from schemas.topics import GENERATIONS, TOKENS

pytestmark = [pytest.mark.integration, pytest.mark.asyncio, pytest.mark.timeout(120)]

WAITING = 40  # prompts that the worker cannot take on
ANSWER_TOKENS = 900
PROMPT_S_MAX = 5.0


async def test_a_cancel_overtakes_the_prompts_that_wait_before_it(stage: Stage) -> None:
    taken_on = GenerateSettings().in_flight_max
    prompts = [f"cancel-{number}" for number in range(taken_on + WAITING)]
    stage.produce({key: a_context(key, ANSWER_TOKENS) for key in prompts}, partition=2)
    running = await first_answered(stage)
    in_the_room, beyond_the_room = prompts[taken_on // 2], prompts[-1]

    cancelled_s = time.monotonic()
    stage.produce(dict.fromkeys([running, in_the_room, beyond_the_room]), partition=2)
    await until(lambda: finished(stage, {running, in_the_room}))
    assert time.monotonic() - cancelled_s < PROMPT_S_MAX
    found = await stage.generations("cancel-")
    # The engine was not through with even one of those before.
    assert len(found) < taken_on
    assert found[running].finish_reason == found[in_the_room].finish_reason == "cancelled"
    assert 0 < found[running].usage.completion_tokens < ANSWER_TOKENS
    assert found[in_the_room].usage.completion_tokens == 0

    stage.produce(dict.fromkeys(prompts), partition=2)
    await stage.each_has_one_final("cancel-", set(prompts))
    last = (await stage.generations("cancel-"))[beyond_the_room]
    assert (last.finish_reason, last.usage.prompt_tokens) == ("cancelled", 0)


async def first_answered(stage: Stage) -> str:
    """The prompt_id of an answer that is being made."""

    async def begun() -> bool:
        return bool(await stage.keys(TOKENS, "cancel-"))

    await until(begun)
    chunks = [codec.decode(TOKENS, r.value or b"") for r in await stage.records(TOKENS)]
    mine = [chunk for chunk in chunks if chunk.prompt_id.startswith("cancel-")]
    done = {chunk.prompt_id for chunk in mine if chunk.finish_reason}
    return next(chunk.prompt_id for chunk in reversed(mine) if chunk.prompt_id not in done)


async def finished(stage: Stage, prompts: set[str]) -> bool:
    return prompts <= set(await stage.keys(GENERATIONS, "cancel-"))
