"""Between record values and events. The decoders are built once and may be shared by threads."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from schemas.errors import EventInvalid
from schemas.events import Event
from schemas.topics import TOPICS, Topic

_DECODERS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    topic.name: msgspec.json.Decoder(topic.event) for topic in TOPICS
}
_ENCODER: Final = msgspec.json.Encoder()


def encode(event: Event) -> bytes:
    """The record value of an event. Limits are checked by `decode`, not here.

    Raises EventInvalid when a field holds what JSON cannot: half a surrogate pair, a foreign type.
    """
    try:
        return _ENCODER.encode(event)
    except (UnicodeEncodeError, TypeError) as error:
        raise EventInvalid(
            f"Not a valid {type(event).__name__}: {error}.", "Mend the field that holds it."
        ) from error


def decode(topic: Topic, value: bytes) -> Any:
    """The event in a record value.

    Raises EventInvalid when the value is over the topic's size, is no JSON, or breaks the struct;
    the message names the field.
    """
    if len(value) > topic.record_bytes_max:
        raise EventInvalid(
            f"The value has {len(value):,} bytes; {topic.name} takes {topic.record_bytes_max:,}.",
            "Split it into smaller events.",
        )
    try:
        return _DECODERS[topic.name].decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventInvalid(
            f"Not a valid {topic.event.__name__}: {error}.",
            f"`headwater contracts show {topic.name}` prints what is expected.",
        ) from error
