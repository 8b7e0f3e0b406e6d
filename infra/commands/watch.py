"""`headwater watch`: a topic's records as they come."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer

from infra.commands.pipes import ending_with_the_reader
from infra.commands.shell import AsJson, out, print_json, run, topic_named
from schemas import codec
from schemas.errors import EventInvalid
from schemas.topics import Topic
from streams.records import Record
from streams.settings import KafkaSettings, load
from streams.subscription import Since, Subscription


def watch(
    topic: Annotated[str, typer.Argument(help="documents, prompts, tokens, generations, …")],
    since: Annotated[str, typer.Option(help="earliest or latest.")] = "latest",
    resume: Annotated[str | None, typer.Option(help="A position that --json printed.")] = None,
    name: Annotated[str | None, typer.Option(help="Go on where this name stopped.")] = None,
    conversation: Annotated[str | None, typer.Option(help="Only this conversation_id.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many records.")] = None,
    as_json: AsJson = False,
) -> None:
    """Follow a topic. Ctrl-C ends it."""
    if since not in ("earliest", "latest"):
        raise typer.BadParameter("earliest or latest", param_hint="--since")
    start: Since = "earliest" if since == "earliest" else "latest"
    found = topic_named(topic)
    subscription = Subscription(load(KafkaSettings), found, None, start, resume, name)

    async def follow() -> None:
        with ending_with_the_reader():
            async with subscription:
                await _show(subscription, found, conversation, count, as_json)

    run(follow())


async def _show(
    subscription: Subscription,
    topic: Topic,
    conversation: str | None,
    count: int | None,
    as_json: bool,
) -> None:
    seen = 0
    async for record in subscription.records():
        value = _decoded(topic, record)
        if conversation is not None and _conversation(value) != conversation:
            continue
        shown = _line(record, value) | {"position": subscription.position_after(record)}
        if as_json:
            print_json(shown)
        else:
            _print(record, shown)
        seen += 1
        if seen == count:
            subscription.note(record)
            return


def _decoded(topic: Topic, record: Record) -> Any:
    """The value as plain JSON; what is no event is shown as it is, with the reason."""
    if record.value is None:
        return None
    try:
        return msgspec.to_builtins(codec.decode(topic, record.value))
    except EventInvalid as error:
        return {"invalid": error.message, "raw": record.value.decode(errors="replace")[:2_000]}


def _conversation(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    found = value.get("conversation_id") or value.get("prompt", {}).get("conversation_id")
    return found if isinstance(found, str) else None


def _line(record: Record, value: Any) -> dict[str, Any]:
    return {
        "partition": record.partition,
        "offset": record.offset,
        "key": record.key_text,
        "time_ms": record.timestamp_ms,
        "headers": {key: (data or b"").decode(errors="replace") for key, data in record.headers},
        "value": value,
    }


def _print(record: Record, shown: dict[str, Any]) -> None:
    when = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
    value = shown["value"]
    text = "deleted" if value is None else msgspec.json.encode(_short(value)).decode()
    where = f"{record.partition}@{record.offset}"
    out.print(f"{when} {where} {record.key_text} {text}", markup=False)


def _short(value: Any) -> Any:
    """Long texts and lists cut, for a line that a person reads."""
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_short(item) for item in value[:5]]
    if isinstance(value, str) and len(value) > 120:
        return value[:120] + "…"
    return value
