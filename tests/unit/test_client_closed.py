"""A client that is used before it was opened says so, instead of an error of Python's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headwater import Client, Document, KafkaSettings, SyncClient
from schemas.errors import BrokerUnreachable, ClientClosed

NOBODY = KafkaSettings(bootstrap="127.0.0.1:1", connect_timeout_s=0.3)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "use",
    [
        lambda client: client.publish_document("lost"),
        lambda client: client.publish_documents([Document("lost")]),
        lambda client: client.delete_document("a"),
        lambda client: client.ask("lost?"),
        lambda client: client.cancel("p"),
        lambda client: client.feedback(prompt_id="p", rating=1.0),
    ],
)
async def test_outside_of_async_with_nothing_is_sent(
    use: Callable[[Client], Awaitable[Any]],
) -> None:
    with pytest.raises(ClientClosed, match="async with Client"):
        await use(Client(NOBODY))


@pytest.mark.asyncio
async def test_a_client_that_did_not_open_is_closed_all_the_same() -> None:
    client = Client(NOBODY)
    with pytest.raises(BrokerUnreachable):
        await client.__aenter__()
    await client.__aexit__()


def test_the_synchronous_client_says_the_same() -> None:
    client = SyncClient(NOBODY)
    with pytest.raises(ClientClosed, match="with SyncClient"):
        client.publish_document("lost")
    with pytest.raises(BrokerUnreachable), client:
        pass
    with pytest.raises(ClientClosed):
        next(client.subscribe("documents"))
