"""What something on its way waits for, told from the consumer groups of the agents. Blocking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.topics import PROMPTS
from streams.failures import explain
from streams.producer import Delivered
from streams.settings import KafkaSettings

# The agents that a record passes, in this order.
PROMPT_HOPS: Final = ("retrieve", "generate")
DOCUMENT_HOPS: Final = ("ingest", "retrieve")
_TIMEOUT_S: Final = 5.0


def missing_workers(settings: KafkaSettings, agents: Sequence[str]) -> str | None:
    """Says which of these agents have no worker at all; None when none is missing.

    Raises as `explain`.
    """
    groups = {settings.group_name(agent): agent for agent in agents}
    admin = AdminClient(settings.client_config())
    try:
        described = admin.describe_consumer_groups(list(groups), request_timeout=_TIMEOUT_S)
        missing = [groups[name] for name, found in described.items() if not found.result().members]
    except KafkaException as error:
        raise explain(error, settings.bootstrap) from error
    return f"no {' and no '.join(missing)} worker has joined the river" if missing else None


def prompt_waits_for(settings: KafkaSettings, prompted: Delivered) -> str:
    """Says which agent a published prompt waits for, and why; raises as `explain`."""
    if missing := missing_workers(settings, PROMPT_HOPS):
        return missing
    before = prompted.offset - _committed(settings, "retrieve", prompted.partition)
    if before < 0:
        return "the generate agent has not begun with it"
    others = f", {before} others of its partition come first" if before else ""
    return f"the retrieve agent has not come to it{others}"


def _committed(settings: KafkaSettings, agent: str, partition: int) -> int:
    """The offset in `prompts` up to which an agent has done its work."""
    place = TopicPartition(settings.topic_name(PROMPTS), partition)
    request = ConsumerGroupTopicPartitions(settings.group_name(agent), [place])
    admin = AdminClient(settings.client_config())
    try:
        (found,) = admin.list_consumer_group_offsets([request], request_timeout=_TIMEOUT_S).values()
        return max(0, int(found.result().topic_partitions[0].offset))
    except KafkaException as error:
        raise explain(error, settings.bootstrap) from error
