"""From the last feedback of a cohort to the first token of the new version, while serving goes on.

Feedback comes at a steady pace, as from people; somebody else asks all the time. The gate lets
everything pass: what is measured is time. How long answers take is compared with the same asking
before any feedback came.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from infra.demo.panel import ask_all, give_feedback, serving_version
from infra.demo.questions import DocQuestion, questions
from infra.demo.stdlib_documents import stdlib_documents
from infra.measure import percentiles
from schemas.events import Retrieval, Sampling
from streams.client import Client
from streams.settings import KafkaSettings

COHORT_SIZE: Final = 32
COHORTS: Final = 3
# Nobody waits for these releases to be good ones.
LEARNING_ENV: Final = {
    "HEADWATER_LEARN_COHORT_SIZE": str(COHORT_SIZE),
    "HEADWATER_LEARN_GATE_TOLERANCE": "100",
}
_FEEDBACK_INTERVAL_S: Final = 1.0
_QUIET_S: Final = 30.0
_NEW_VERSION_S_MAX: Final = 180.0


async def bench_learning(kafka: KafkaSettings) -> dict[str, Any]:
    """Seconds for each cohort, and first-token times of the asker beside it."""
    panel = questions("panel")[: COHORTS * COHORT_SIZE]
    wanted = {f"stdlib/{found.name}" for found in panel}
    async with Client(kafka, source="/bench") as client:
        documents = [d for d in stdlib_documents() if d.document_id in wanted]
        await client.publish_documents(documents)
        answers = await ask_all(client, panel)
        quiet: list[float] = []
        asking = asyncio.create_task(_ask_on(client, quiet))
        await asyncio.sleep(_QUIET_S)
        asking.cancel()
        busy: list[float] = []
        asking = asyncio.create_task(_ask_on(client, busy))
        seconds = []
        try:
            for start in range(0, len(answers), COHORT_SIZE):
                version = await serving_version(client)
                for asked in answers[start : start + COHORT_SIZE]:
                    await give_feedback(client, [asked])
                    await asyncio.sleep(_FEEDBACK_INTERVAL_S)
                seconds.append(await _until_other(client, version) + _FEEDBACK_INTERVAL_S)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
    return {
        "cohort": COHORT_SIZE,
        "feedback_a_second": 1.0 / _FEEDBACK_INTERVAL_S,
        "feedback_to_first_token_s": percentiles(seconds),
        "each_s": [round(value, 2) for value in seconds],
        "goal": "p50 <= 20 s",
        "first_token_quiet_ms": percentiles(quiet),
        "first_token_while_learning_ms": percentiles(busy),
    }


async def _ask_on(client: Client, first_ms: list[float]) -> None:
    """One question after the other, noting how long each waits for its first token."""
    asked: Sequence[DocQuestion] = questions("held-out")
    number = 0
    while True:
        begun = time.perf_counter()
        answer = await client.ask(
            asked[number % len(asked)].question,
            sampling=Sampling(max_tokens=24),
            retrieval=Retrieval(top_k=1),
        )
        waiting = True
        async for _ in answer:
            if waiting:
                first_ms.append(1_000 * (time.perf_counter() - begun))
                waiting = False
        number += 1


async def _until_other(client: Client, version: str) -> float:
    """Seconds until an answer of one token comes from another version."""
    begun = time.perf_counter()
    async with asyncio.timeout(_NEW_VERSION_S_MAX):
        while await serving_version(client) == version:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return time.perf_counter() - begun
