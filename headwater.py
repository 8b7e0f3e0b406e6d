"""Headwater's public door: publish events, ask, subscribe.

async with Client() as client:
    await client.publish_document("Water boils at 100 degrees at sea level.")
    async for delta in await client.ask("When does water boil?"):
        print(delta.text, end="")
"""

from __future__ import annotations

from schemas.errors import HeadwaterError
from schemas.events import (
    Document,
    Feedback,
    Generation,
    Message,
    Prompt,
    Retrieval,
    Sampling,
    TokenChunk,
)
from streams.answer import Answer
from streams.assembly import Delta
from streams.client import Client
from streams.settings import KafkaSettings
from streams.subscription import Subscription
from streams.sync import SyncClient

__all__ = [
    "Answer",
    "Client",
    "Delta",
    "Document",
    "Feedback",
    "Generation",
    "HeadwaterError",
    "KafkaSettings",
    "Message",
    "Prompt",
    "Retrieval",
    "Sampling",
    "Subscription",
    "SyncClient",
    "TokenChunk",
    "main",
]


def main() -> None:
    """The `headwater` command. It lives in the checkout and the image, not in the light SDK."""
    try:
        from infra.cli import app
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"The command line is not installed here ({error.name} is missing). "
            "Run it from a checkout (`make venv`, then .venv/bin/headwater) or from the image."
        ) from None
    app()
