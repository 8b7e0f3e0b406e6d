"""Between record values and events. The decoders are built once and may be shared by threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from schemas.errors import EventInvalid, RecordTooLarge
from schemas.events import Event
from schemas.topics import TOPICS, Topic

_DECODERS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    topic.name: msgspec.json.Decoder(topic.event) for topic in TOPICS
}
_KEY_CHARS_SHOWN: Final = 80
_ENCODER: Final = msgspec.json.Encoder()
_UNENCODABLE: Final = (UnicodeEncodeError, TypeError)
_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def encode(event: Event) -> bytes:
    """The record value of an event. Limits are checked by `decode`, not here.

    Raises EventInvalid when a field holds what JSON cannot: half a surrogate pair, a foreign type.
    """
    try:
        return _ENCODER.encode(event)
    except _UNENCODABLE as error:
        raise _unencodable(event, error) from error


def checked(topic: Topic, event: Event) -> bytes:
    """The record value of an event, proved acceptable to every reader.

    msgspec enforces limits when it decodes, not when it makes a struct. Raises EventInvalid, and
    RecordTooLarge for a value over the topic's size.
    """
    return _CHECKERS[topic.name](event)


def checker(topic: Topic) -> Callable[[Event], bytes]:
    """`checked` for many events of one topic: what can be looked up once, is."""
    return _CHECKERS[topic.name]


def _checker(topic: Topic) -> Callable[[Event], bytes]:
    encode, decode = _ENCODER.encode, _DECODERS[topic.name].decode
    bytes_max = topic.record_bytes_max

    def check(event: Event) -> bytes:
        try:
            value = encode(event)
            if len(value) > bytes_max:
                raise RecordTooLarge(*_too_large(topic, value, _named(topic, event)))
            decode(value)
        except _UNENCODABLE as error:
            raise _unencodable(event, error) from error
        except _UNDECODABLE as error:
            raise _invalid(topic, error, _named(topic, event)) from error
        return value

    return check


def decode(topic: Topic, value: bytes) -> Any:
    """The event in a record value.

    Raises EventInvalid when the value is over the topic's size, is no JSON, or breaks the struct;
    the message names the field.
    """
    if len(value) > topic.record_bytes_max:
        raise EventInvalid(*_too_large(topic, value))
    try:
        return _DECODERS[topic.name].decode(value)
    except _UNDECODABLE as error:
        raise _invalid(topic, error) from error


def _named(topic: Topic, event: Event) -> str:
    """Which of many events is meant, where it says so itself."""
    key = getattr(event, topic.key, None)
    return f" ({key[:_KEY_CHARS_SHOWN]})" if isinstance(key, str) and key else ""


def _too_large(topic: Topic, value: bytes, named: str = "") -> tuple[str, str]:
    return (
        f"The value{named} has {len(value):,} bytes; "
        f"{topic.name} takes {topic.record_bytes_max:,}.",
        "Split it into smaller events.",
    )


def _unencodable(event: Event, error: Exception) -> EventInvalid:
    return EventInvalid(
        f"Not a valid {type(event).__name__}: {error}.", "Mend the field that holds it."
    )


def _invalid(topic: Topic, error: Exception, named: str = "") -> EventInvalid:
    return EventInvalid(
        f"Not a valid {topic.event.__name__}{named}: {error}.",
        f"`headwater contracts show {topic.name}` prints what is expected.",
    )


_CHECKERS: Final = {topic.name: _checker(topic) for topic in TOPICS}
