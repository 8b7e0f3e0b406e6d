"""A record as it came from Kafka, before anybody believes what is in it."""

from __future__ import annotations

from dataclasses import dataclass

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

RawHeaders = list[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Record:
    """Raw bytes and where they stood. `timestamp_ms` is the broker's clock (0: unknown)."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: RawHeaders
    timestamp_ms: int

    @property
    def key_text(self) -> str | None:
        """The key as text; bytes that are no UTF-8 come back escaped, so that nothing raises."""
        return self.key.decode(errors="backslashreplace") if self.key is not None else None


def from_message(message: Message) -> Record:
    """Copy what we need out of a confluent-kafka message."""
    kind, timestamp_ms = message.timestamp()
    return Record(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        key=_as_bytes(message.key()),
        value=_as_bytes(message.value()),
        headers=list(message.headers() or []),  # type: ignore[arg-type]
        timestamp_ms=0 if kind == TIMESTAMP_NOT_AVAILABLE else timestamp_ms,
    )


def _as_bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
