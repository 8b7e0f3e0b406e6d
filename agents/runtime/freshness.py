"""How long documents and feedback took to take effect, as analytics records."""

from __future__ import annotations

from schemas import codec, headers
from schemas.clock import now_ms
from schemas.events import DOCUMENT_FRESHNESS, FEEDBACK_FRESHNESS, Statistic
from schemas.topics import ANALYTICS
from streams.producer import Outgoing


def freshness_statistic(
    document_id: str, published_ms: int, retrievable_ms: int, replica: str
) -> Outgoing:
    """Document published → retrievable in one replica."""
    labels = {"document_id": document_id, "replica": replica}
    statistic = _waited(DOCUMENT_FRESHNESS, labels, published_ms, retrievable_ms)
    key = f"{DOCUMENT_FRESHNESS}/{document_id}/{replica}"
    made = headers.make_headers(ANALYTICS, f"{key}@{published_ms}", "/agents/retrieve")
    return Outgoing(ANALYTICS, key, codec.encode(statistic), made)


class FeedbackWaiting:
    """When the feedback was given that the next version will have learned, by example."""

    def __init__(self) -> None:
        self._given_ms: dict[str, int] = {}

    def add(self, example_id: str, given_ms: int) -> None:
        """An example came; `given_ms` is the time of its record. A copy changes nothing."""
        self._given_ms.setdefault(example_id, given_ms)

    def told(self, model_version: str, released: bool) -> list[Outgoing]:
        """After a round: how long each waited for the version, where it went live."""
        given_ms, self._given_ms = self._given_ms, {}
        live_ms = now_ms()
        return [
            _feedback_statistic(example_id, model_version, at_ms, live_ms)
            for example_id, at_ms in (given_ms.items() if released else ())
        ]


def _feedback_statistic(
    example_id: str, model_version: str, given_ms: int, live_ms: int
) -> Outgoing:
    """Feedback given (its example's time) → part of a version that was published."""
    labels = {"example_id": example_id, "model_version": model_version}
    statistic = _waited(FEEDBACK_FRESHNESS, labels, given_ms, live_ms)
    key = f"{FEEDBACK_FRESHNESS}/{model_version}/{example_id}"
    made = headers.make_headers(ANALYTICS, key, "/agents/learn")
    return Outgoing(ANALYTICS, key, codec.encode(statistic), made)


def _waited(name: str, labels: dict[str, str], since_ms: int, until_ms: int) -> Statistic:
    """Two clocks may differ: nothing takes effect before it came."""
    until_ms = max(until_ms, since_ms)
    return Statistic(name, since_ms, until_ms, labels, {"freshness_ms": float(until_ms - since_ms)})
