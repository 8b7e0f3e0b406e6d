"""Document freshness at a steady rate: published → retrievable."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from infra.freshness import Freshness
from infra.measure import percentiles
from schemas import ids
from schemas.events import Document
from streams.client import Client

RATE_PER_S: Final = 20
DURATION_S: Final = 30
_TEXT: Final = (
    "Document {n} of the freshness benchmark is about river number {n}. It rises in the hills, "
    "passes {n} towns and ends in a lake. Its water is measured every minute. "
) * 4


async def bench_freshness(client: Client) -> dict[str, Any]:
    """Milliseconds from the broker's taking of a document to its being in the index."""
    documents = [
        Document(_TEXT.format(n=n), ids.new_id("bench")) for n in range(RATE_PER_S * DURATION_S)
    ]
    freshness = Freshness(client)
    await freshness.open()
    try:
        started = time.monotonic()
        for number, document in enumerate(documents):
            await asyncio.sleep(max(0.0, started + number / RATE_PER_S - time.monotonic()))
            await client.publish_document(document)
        wanted = [document.document_id or "" for document in documents]
        fresh_ms = [ms async for _, ms in freshness.of(wanted)]
    finally:
        await freshness.close()
    return {
        "documents_per_s": RATE_PER_S,
        "freshness_ms": percentiles(fresh_ms),
        "goal": "p99 <= 1000",
    }
