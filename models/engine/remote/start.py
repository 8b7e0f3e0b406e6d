"""The first words with a server: is it there, what does it serve, what kind is it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from models.engine.remote.client import ModelCard, ServerClient
from models.engine.remote.faults import Backoff, ServerFault
from models.engine.remote.options import Server
from models.engine.remote.wire import DIALECTS, OWNERS, Dialect
from schemas.errors import EventInvalid, ModelUnavailable

log = logging.getLogger("headwater.generate")


async def await_server(client: ServerClient, timeout_s: float) -> list[ModelCard]:
    """What the server serves, as soon as it answers: vLLM takes minutes to load a model.

    Raises ModelUnavailable after `timeout_s`, or at once when waiting would not help.
    """
    backoff = Backoff(timeout_s)
    last: ServerFault | None = None
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    return await client.models()
                except ServerFault as fault:
                    pause_s = backoff.next_s(fault.retry_after_s) if fault.transient else None
                    if pause_s is None:
                        raise
                    last = fault
                    log.warning("%s Asking again in %.1f s.", fault.message, pause_s)
                    await asyncio.sleep(pause_s)
    except (ServerFault, EventInvalid) as error:
        raise ModelUnavailable(error.message, error.remedy) from error
    except TimeoutError as error:
        if last is not None:
            raise ModelUnavailable(last.message, last.remedy) from last
        raise ModelUnavailable(
            f"The server at {client.url} did not say within {timeout_s:g} s what it serves.",
            "See its log, or raise HEADWATER_GENERATE_REMOTE_START_TIMEOUT_S.",
        ) from error


def choose_model(cards: Sequence[ModelCard], wanted: str) -> ModelCard:
    """The model that `wanted` names, or the only one. Raises ModelUnavailable."""
    base = [card for card in cards if card.parent is None]
    found = [card for card in base if card.id == wanted] if wanted else base
    if len(found) == 1:
        return found[0]
    named = f"no model {wanted!r}" if wanted else f"{len(base)} models, and none is chosen"
    raise ModelUnavailable(
        f"The server has {named}. It serves: {', '.join(card.id for card in base) or 'nothing'}.",
        "Set HEADWATER_GENERATE_REMOTE_MODEL to one of these.",
    )


def choose_dialect(card: ModelCard, server: Server) -> Dialect:
    """The dialect of the named kind of server, or of the kind that the model's owner tells."""
    name = OWNERS.get(card.owned_by, "openai") if server == "auto" else server
    return DIALECTS[name]
