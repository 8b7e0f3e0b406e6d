"""Every topic of the river, declared once. Names here carry no prefix; settings add it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from schemas import events, limits

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Topic:
    """`key` names the event field that is the record's key; `retention_ms` None means compacted."""

    name: str
    event: type[events.Event]
    key: str
    description: str
    partitions: int = 4
    retention_ms: int | None = 30 * DAY_MS
    record_bytes_max: int = limits.RECORD_BYTES_MAX
    tombstones: bool = False
    # Of a compacted topic: how long older records of a key are kept beside the newest.
    history_ms: int = 0

    @property
    def batch_bytes_max(self) -> int:
        """What the broker is told: a record's value with its key, headers and framing."""
        return self.record_bytes_max + limits.FRAMING_BYTES_MAX

    @property
    def compacted(self) -> bool:
        return self.retention_ms is None


DOCUMENTS: Final = Topic(
    "documents",
    events.Document,
    "document_id",
    "Documents to become retrievable; null deletes everywhere.",
    retention_ms=None,
    tombstones=True,
)
PASSAGES: Final = Topic(
    "passages",
    events.Passage,
    "passage_id",
    "Chunks with their embeddings; null deletes.",
    retention_ms=None,
    tombstones=True,
)
PROMPTS: Final = Topic(
    "prompts",
    events.Prompt,
    "prompt_id",
    "Questions to the model; null cancels.",
    retention_ms=7 * DAY_MS,
    tombstones=True,
)
CONTEXTS: Final = Topic(
    "contexts",
    events.Context,
    "prompt_id",
    "Prompts with the passages found for them; null cancels.",
    retention_ms=7 * DAY_MS,
    # A context holds a whole prompt and its passages, so it may be larger than either.
    record_bytes_max=4 * limits.RECORD_BYTES_MAX,
    tombstones=True,
)
TOKENS: Final = Topic(
    "tokens",
    events.TokenChunk,
    "prompt_id",
    "Numbered chunks of generations, in the reply partition of their prompt; null says that "
    "another reader goes on with one.",
    partitions=16,
    retention_ms=HOUR_MS,
    record_bytes_max=4 * limits.RECORD_BYTES_MAX,
    tombstones=True,
)
GENERATIONS: Final = Topic(
    "generations",
    events.Generation,
    "prompt_id",
    "Finished records, exactly one a prompt (read committed).",
    record_bytes_max=4 * limits.RECORD_BYTES_MAX,
)
FEEDBACK: Final = Topic(
    "feedback", events.Feedback, "prompt_id", "Ratings, corrections and labels of answers."
)
EXAMPLES: Final = Topic("examples", events.Example, "user", "What the learner may train on.")
OUTCOMES: Final = Topic(
    "outcomes",
    events.Outcome,
    "outcome_id",
    "Feedback with what is known of its answer, for what adapts.",
    # One order for all: a learner that reads it again ends in the same state, bit for bit.
    partitions=1,
    record_bytes_max=2 * limits.RECORD_BYTES_MAX,
)
VERDICTS: Final = Topic(
    "verdicts",
    events.Verdict,
    # As of examples: what one user said stays in order.
    "user",
    "What the guard let through, with weights, and what it quarantined.",
    record_bytes_max=3 * limits.RECORD_BYTES_MAX,
)
POLICIES: Final = Topic(
    "policies",
    events.Policy,
    "learner",
    "How serving variants are chosen.",
    partitions=1,
    retention_ms=None,
    tombstones=True,
)
MODEL_UPDATES: Final = Topic(
    "model-updates",
    events.ModelUpdate,
    "adapter",
    "The live version of each adapter.",
    partitions=1,
    retention_ms=None,
    tombstones=True,
    # What a version can be rolled back to.
    history_ms=30 * DAY_MS,
)
CONTROLS: Final = Topic(
    "controls",
    events.Control,
    "adapter",
    "Whether an adapter learns; null: it does.",
    partitions=1,
    retention_ms=None,
    tombstones=True,
)
FEDERATED_ROUNDS: Final = Topic(
    "federated-rounds",
    events.FederatedRound,
    "round_id",
    "Rounds asked for, started, finished, failed.",
    partitions=1,
)
ANALYTICS: Final = Topic(
    "analytics", events.Statistic, "name", "Windowed statistics.", partitions=4
)
DEAD_LETTERS: Final = Topic(
    "dead-letters",
    events.DeadLetter,
    "key",
    "Records that could not be processed, with the reason.",
    partitions=1,
    record_bytes_max=limits.DEAD_LETTER_BYTES_MAX,
)

TOPICS: Final[tuple[Topic, ...]] = (
    DOCUMENTS,
    PASSAGES,
    PROMPTS,
    CONTEXTS,
    TOKENS,
    GENERATIONS,
    FEEDBACK,
    EXAMPLES,
    OUTCOMES,
    VERDICTS,
    POLICIES,
    MODEL_UPDATES,
    FEDERATED_ROUNDS,
    ANALYTICS,
    DEAD_LETTERS,
    CONTROLS,
)
# What an agent keeps for itself, with no contract: values are its own and may change.
EXCHANGES: Final = Topic(
    "join-exchanges",
    events.Event,
    "prompt_id",
    "join's table: prompts with their answers and the feedback that waits for them.",
    retention_ms=None,
    record_bytes_max=8 * limits.RECORD_BYTES_MAX,
    tombstones=True,
)
INTERNAL_TOPICS: Final[tuple[Topic, ...]] = (EXCHANGES,)

BY_NAME: Final[dict[str, Topic]] = {topic.name: topic for topic in TOPICS}
