"""How far the consumer groups of the river are behind. Blocking."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from streams.failures import explain
from streams.settings import KafkaSettings

_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Lag:
    """Records of a topic that a group has not done. One more a partition may be a transaction's
    mark."""

    group: str
    topic: str
    records: int


class LagReader:
    """Keeps one connection; `read` asks once."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._admin = AdminClient(kafka.client_config())

    def read(self) -> tuple[list[Lag], dict[str, int]]:
        """The lag of each group and topic, and the members of each group; names without prefix.

        Raises as `explain`.
        """
        try:
            groups = self._groups()
            members = self._members(groups)
            places = [(group, place) for group in groups for place in self._committed(group)]
            ends = self._ends({(place.topic, place.partition) for _, place in places})
        except KafkaException as error:
            raise explain(error, self._kafka.bootstrap) from error
        behind: dict[tuple[str, str], int] = {}
        for group, place in places:
            key = self._short(group), self._short(place.topic)
            end = ends[place.topic, place.partition]
            behind[key] = behind.get(key, 0) + max(0, end - place.offset)
        return [Lag(*key, records) for key, records in sorted(behind.items())], members

    def _groups(self) -> list[str]:
        found = self._admin.list_consumer_groups(request_timeout=_TIMEOUT_S).result()
        names = [group.group_id for group in found.valid]
        return sorted(name for name in names if name.startswith(self._kafka.topic_prefix))

    def _members(self, groups: list[str]) -> dict[str, int]:
        if not groups:
            return {}
        found = self._admin.describe_consumer_groups(groups, request_timeout=_TIMEOUT_S)
        return {self._short(name): len(each.result().members) for name, each in found.items()}

    def _committed(self, group: str) -> Iterator[TopicPartition]:
        request = [ConsumerGroupTopicPartitions(group)]
        (found,) = self._admin.list_consumer_group_offsets(
            request, request_timeout=_TIMEOUT_S
        ).values()
        for place in found.result().topic_partitions:
            if place.offset >= 0 and place.error is None:
                yield place

    def _ends(self, places: set[tuple[str, int]]) -> dict[tuple[str, int], int]:
        if not places:
            return {}
        found = self._admin.list_offsets(
            {TopicPartition(*place): OffsetSpec.latest() for place in places},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=_TIMEOUT_S,
        )
        return {(p.topic, p.partition): each.result().offset for p, each in found.items()}

    def _short(self, name: str) -> str:
        return name.removeprefix(self._kafka.topic_prefix)
