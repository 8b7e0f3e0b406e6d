"""Every event of the river, as msgspec structs; record values are their plain JSON.

Times are Unix milliseconds (`_ms`) unless a name says otherwise. Ids are 1 to 256 characters.
Fields that a person may leave out have defaults; unknown fields are ignored, so that an older
reader accepts what a newer writer adds.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from schemas import limits

Id = Annotated[str, Meta(min_length=1, max_length=limits.ID_CHARS_MAX)]
PassageId = Annotated[str, Meta(min_length=1, max_length=limits.PASSAGE_ID_CHARS_MAX)]
Name = Annotated[str, Meta(min_length=1, max_length=limits.NAME_CHARS_MAX)]
Title = Annotated[str, Meta(max_length=limits.TITLE_CHARS_MAX)]
Uri = Annotated[str, Meta(max_length=limits.URI_CHARS_MAX)]
# Its whole size is limited as well, by `Sampling`.
JsonSchema = Annotated[
    dict[Annotated[str, Meta(max_length=limits.JSON_SCHEMA_BYTES_MAX)], Any],
    Meta(max_length=limits.JSON_SCHEMA_BYTES_MAX),
]
Reason = Annotated[str, Meta(max_length=limits.REASON_CHARS_MAX)]
Label = Annotated[str, Meta(max_length=limits.LABEL_CHARS_MAX)]
Partition = Annotated[int, Meta(ge=0, le=limits.PARTITION_MAX)]
Count = Annotated[int, Meta(ge=0)]
TimeMs = Annotated[int, Meta(ge=0)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Scalar = Label | int | float | bool
Metadata = Annotated[dict[Name, Scalar], Meta(max_length=limits.METADATA_ENTRIES_MAX)]
Answer = Annotated[str, Meta(max_length=limits.ANSWER_CHARS_MAX)]

Sketch = Annotated[list[float], Meta(max_length=limits.SKETCH_NUMBERS_MAX)]

HeaderName = Annotated[str, Meta(max_length=limits.NAME_CHARS_MAX)]
Framing = Annotated[bytes, Meta(max_length=limits.FRAMING_BYTES_MAX)]

FinishReason = Literal["stop", "length", "cancelled", "error"]
SearchMode = Literal["fused", "dense", "keyword"]
MediaType = Literal["text/plain", "text/markdown", "text/html"]


class Event(Struct, frozen=True, omit_defaults=True):
    """Root of all events: immutable; fields that hold their default are left out of the JSON."""


class Document(Event, frozen=True):
    """A text that is to become retrievable. Without `document_id` the record's key decides."""

    text: Annotated[str, Meta(max_length=limits.DOCUMENT_CHARS_MAX)]
    document_id: Id | None = None
    media_type: MediaType = "text/plain"
    title: Title | None = None
    source: Uri | None = None
    metadata: Metadata = {}


class Passage(Event, frozen=True):
    """A chunk of a document with its embedding: little-endian float32, base64 in the JSON."""

    passage_id: PassageId
    document_id: Id
    index: Count
    text: Annotated[str, Meta(max_length=limits.PASSAGE_CHARS_MAX)]
    embedding: Annotated[bytes, Meta(max_length=limits.EMBEDDING_BYTES_MAX)]
    embedder: Name
    published_ms: TimeMs
    title: Title | None = None
    source: Uri | None = None
    metadata: Metadata = {}


class Message(Event, frozen=True):
    """One turn of a conversation, in OpenAI's shape."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Meta(max_length=limits.MESSAGE_CHARS_MAX)]


class Sampling(Event, frozen=True):
    """How tokens are drawn, by OpenAI's and vLLM's names.

    Temperature 0 takes the likeliest token each time. `n` answers share the prompt, and together
    have at most 8,192 tokens; each draws with a seed of its own, the first with `seed`.
    `json_schema` or `json_object` make the answer JSON, valid under the schema, unless it ends with
    finish_reason `length`; `stop` cannot be used with them. `top_logprobs` needs `logprobs`.
    """

    max_tokens: Annotated[int, Meta(ge=1, le=limits.MAX_TOKENS_MAX)] = 256
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] = 0.0
    top_p: Annotated[float, Meta(gt=0.0, le=1.0)] = 1.0
    top_k: Annotated[int, Meta(ge=0)] = 0
    seed: Annotated[int, Meta(ge=0, le=limits.SEED_MAX)] | None = None
    stop: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=limits.STOP_CHARS_MAX)]],
        Meta(max_length=limits.STOPS_MAX),
    ] = []
    min_p: Fraction = 0.0
    repetition_penalty: Annotated[float, Meta(gt=0.0, le=10.0)] = 1.0
    frequency_penalty: Annotated[float, Meta(ge=-2.0, le=2.0)] = 0.0
    presence_penalty: Annotated[float, Meta(ge=-2.0, le=2.0)] = 0.0
    n: Annotated[int, Meta(ge=1, le=limits.N_MAX)] = 1
    logprobs: bool = False
    top_logprobs: Annotated[int, Meta(ge=0, le=limits.TOP_LOGPROBS_MAX)] = 0
    json_object: bool = False
    json_schema: JsonSchema | None = None

    def __post_init__(self) -> None:
        tokens = self.n * self.max_tokens
        if tokens > limits.MAX_TOKENS_MAX:
            raise ValueError(f"n · max_tokens is {tokens:,}, over {limits.MAX_TOKENS_MAX:,}")
        if self.logprobs and tokens * (1 + self.top_logprobs) > limits.LOGPROBS_MAX:
            raise ValueError(f"n · max_tokens · (1 + top_logprobs) is over {limits.LOGPROBS_MAX:,}")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs")
        if self.json_object or self.json_schema is not None:
            self._check_json()

    def _check_json(self) -> None:
        if self.json_object and self.json_schema is not None:
            raise ValueError("json_object and json_schema exclude each other")
        if self.stop:
            raise ValueError("stop cannot be used with JSON")
        if len(msgspec.json.encode(self.json_schema)) > limits.JSON_SCHEMA_BYTES_MAX:
            raise ValueError(f"json_schema has over {limits.JSON_SCHEMA_BYTES_MAX:,} bytes")


class Retrieval(Event, frozen=True):
    """Which passages a prompt wants. `score_floor` is a cosine; `top_k` 0 retrieves nothing."""

    top_k: Annotated[int, Meta(ge=0, le=limits.TOP_K_MAX)] = 4
    mode: SearchMode = "fused"
    score_floor: Annotated[float, Meta(ge=-1.0, le=1.0)] | None = None
    filters: Metadata = {}


class Prompt(Event, frozen=True):
    """A question to the model. Without `prompt_id` the record's key decides.

    With `adapt` false it is answered with exactly these options, whatever variants are on trial.
    """

    messages: Annotated[list[Message], Meta(min_length=1, max_length=limits.MESSAGES_MAX)]
    prompt_id: Id | None = None
    sampling: Sampling = Sampling()
    retrieval: Retrieval = Retrieval()
    user_id: Id | None = None
    conversation_id: Id | None = None
    reply_partition: Partition | None = None
    adapt: bool = True


class FoundPassage(Event, frozen=True):
    """A passage found for a prompt; `score` orders, `cosine` compares between prompts.

    `bm25` weighs the words that both have; 0 where there are none, or none were asked for.
    """

    passage_id: PassageId
    document_id: Id
    text: Annotated[str, Meta(max_length=limits.PASSAGE_CHARS_MAX)]
    score: float
    cosine: float | None = None
    bm25: float | None = None
    title: Title | None = None
    source: Uri | None = None


class Choice(Event, frozen=True):
    """The serving variant that was drawn for a prompt, and how likely that draw was.

    `adapter` answers, where the variant names one. `features` is what the draw was made from, and
    `policy_version` counts the rewards that the policy had learned from.
    """

    variant: Name
    propensity: Annotated[float, Meta(gt=0.0, le=1.0)]
    policy_version: Count = 0
    adapter: Name | None = None
    features: Annotated[list[float], Meta(max_length=limits.CHOICE_FEATURES_MAX)] = []


class Context(Event, frozen=True):
    """A prompt together with the passages found for it: nothing downstream has to join.

    `prompt_sketch` is a projection of the query's embedding, by which drift is noticed.
    """

    prompt_id: Id
    prompt: Prompt
    passages: Annotated[list[FoundPassage], Meta(max_length=limits.TOP_K_MAX)]
    prompted_ms: TimeMs
    retrieved_ms: TimeMs
    choice: Choice | None = None
    prompt_sketch: Sketch = []


class TopLogprob(Event, frozen=True):
    """A token that was likely, and its natural log probability, at least -9999.

    `raw` (base64 in the JSON) holds its bytes where it is no whole characters.
    """

    token: Annotated[str, Meta(max_length=limits.TOKEN_CHARS_MAX)]
    logprob: float
    raw: Annotated[bytes, Meta(max_length=limits.TOKEN_CHARS_MAX)] | None = None


class TokenLogprob(Event, frozen=True):
    """A token of the answer, and the likeliest in its place, of the model's own distribution."""

    token: Annotated[str, Meta(max_length=limits.TOKEN_CHARS_MAX)]
    logprob: float
    raw: Annotated[bytes, Meta(max_length=limits.TOKEN_CHARS_MAX)] | None = None
    top: Annotated[list[TopLogprob], Meta(max_length=limits.TOP_LOGPROBS_MAX)] = []


Logprobs = Annotated[list[TokenLogprob], Meta(max_length=limits.LOGPROBS_MAX)]


class Alternative(Event, frozen=True):
    """One of the further answers to a prompt whose sampling asks for several."""

    text: Answer
    finish_reason: FinishReason
    logprobs: Logprobs = []
    error: Reason | None = None


class Usage(Event, frozen=True):
    """Tokens read and written for one prompt; those written are of all its answers."""

    prompt_tokens: Count
    completion_tokens: Count


class Timings(Event, frozen=True):
    """When each step of one prompt happened. `prompted_ms` is the broker's clock."""

    prompted_ms: TimeMs
    retrieved_ms: TimeMs
    started_ms: TimeMs
    finished_ms: TimeMs
    first_token_ms: TimeMs | None = None


class Generation(Event, frozen=True):
    """The finished record of one prompt; exactly one is visible to read-committed consumers.

    `cited` holds 1-based numbers of `passages` that the answer cites or plainly repeats. Of n
    answers the first is `text`, the others are `alternatives`. `prompt_chars` is the length of what
    the user said last.
    """

    generation_id: Id
    prompt_id: Id
    text: Answer
    finish_reason: FinishReason
    model: Name
    model_version: Name
    attempt: Count
    passages: Annotated[list[FoundPassage], Meta(max_length=limits.TOP_K_MAX)]
    cited: Annotated[list[Count], Meta(max_length=limits.TOP_K_MAX)]
    usage: Usage
    timings: Timings
    user_id: Id | None = None
    conversation_id: Id | None = None
    error: Reason | None = None
    logprobs: Logprobs = []
    alternatives: Annotated[list[Alternative], Meta(max_length=limits.N_MAX - 1)] = []
    choice: Choice | None = None
    prompt_chars: Count | None = None
    prompt_sketch: Sketch = []


class TokenChunk(Event, frozen=True):
    """One numbered piece of a generation; the first names its passages, the last carries the
    finished record. Of n answers, `choice` says which one (0 to n - 1) the text belongs to.

    A larger `attempt` (Unix milliseconds of its start) replaces a smaller one from index 0.
    """

    generation_id: Id
    prompt_id: Id
    attempt: Count
    index: Count
    text: Answer
    model_version: Name
    conversation_id: Id | None = None
    passages: Annotated[list[FoundPassage], Meta(max_length=limits.TOP_K_MAX)] = []
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    generation: Generation | None = None
    choice: Annotated[int, Meta(ge=0, le=limits.N_MAX - 1)] = 0
    logprobs: Logprobs = []


class Feedback(Event, frozen=True):
    """What a person thinks of an answer: rating in [-1, 1], a better text, labels; one at least."""

    prompt_id: Id | None = None
    feedback_id: Id | None = None
    user_id: Id | None = None
    rating: Annotated[float, Meta(ge=-1.0, le=1.0)] | None = None
    correction: (
        Annotated[str, Meta(min_length=1, max_length=limits.CORRECTION_CHARS_MAX)] | None
    ) = None
    labels: Annotated[dict[Name, Label], Meta(max_length=limits.LABELS_MAX)] = {}

    def __post_init__(self) -> None:
        if self.rating is None and self.correction is None and not self.labels:
            raise ValueError("one of rating, correction, labels is needed")


class Example(Event, frozen=True):
    """What the learner may train on, under a pseudonymous user."""

    example_id: Id
    user: Id
    prompt_id: Id
    generation_id: Id
    model_version: Name
    messages: Annotated[list[Message], Meta(min_length=1, max_length=limits.MESSAGES_MAX)]
    completion: Answer
    reward: Annotated[float, Meta(ge=-1.0, le=1.0)] | None = None
    correction: (
        Annotated[str, Meta(min_length=1, max_length=limits.CORRECTION_CHARS_MAX)] | None
    ) = None
    labels: Annotated[dict[Name, Label], Meta(max_length=limits.LABELS_MAX)] = {}


Features = Annotated[dict[Name, float], Meta(max_length=limits.FEATURES_MAX)]
Fingerprint = Annotated[str, Meta(max_length=64)]


class Outcome(Event, frozen=True):
    """Feedback with what is known of its answer: what bandit, reward model and guard learn from.

    `reward` is the rating; a correction without one counts as -0.5, labels alone have none.
    `predicted` holds the answer's own labels, as far as people's `labels` name them. Fingerprints
    are equal for equal texts. `released`: an operator vouches for it, the guard is not asked.
    """

    outcome_id: Id
    user: Id
    prompt_id: Id
    generation_id: Id
    model_version: Name
    at_ms: TimeMs
    reward: Annotated[float, Meta(ge=-1.0, le=1.0)] | None = None
    corrected: bool = False
    labels: Annotated[dict[Name, Label], Meta(max_length=limits.LABELS_MAX)] = {}
    predicted: Annotated[dict[Name, Label], Meta(max_length=limits.LABELS_MAX)] = {}
    features: Features = {}
    answer_fingerprint: Fingerprint = ""
    correction_fingerprint: Fingerprint = ""
    choice: Choice | None = None
    example: Example | None = None
    released: bool = False


class Verdict(Event, frozen=True):
    """What the guard decided on one outcome: its `weight` from 0 to 1, and why.

    A quarantined one waits, whole, for an operator, who releases or drops it.
    """

    outcome_id: Id
    at_ms: TimeMs
    decision: Literal["accepted", "quarantined", "released", "dropped"]
    user: Id | None = None
    weight: Fraction = 1.0
    reasons: Annotated[list[Reason], Meta(max_length=limits.REASONS_MAX)] = []
    outcome: Outcome | None = None


class ArmEstimate(Event, frozen=True):
    """What is known of one variant: mean (d,) and covariance (d, d), by rows, of its weights."""

    variant: Name
    mean: Annotated[list[float], Meta(max_length=limits.CHOICE_FEATURES_MAX)]
    covariance: Annotated[list[float], Meta(max_length=limits.CHOICE_FEATURES_MAX**2)]


class Policy(Event, frozen=True):
    """How variants are drawn; the first arm is the baseline, `floor` each arm's least chance.

    Where `learns` is false every arm but the baseline has just the floor.
    """

    learner: Name
    version: Count
    at_ms: TimeMs
    floor: Fraction
    arms: Annotated[list[ArmEstimate], Meta(max_length=limits.VARIANTS_MAX)]
    learns: bool = True


class PrivacySpent(Event, frozen=True):
    """What one release cost, and what its adapter has spent in all."""

    mechanism: Literal["none", "gaussian", "correlated"]
    privacy_unit: Literal["user", "device"] = "user"
    epsilon: Annotated[float, Meta(ge=0.0)] | None = None
    delta: Fraction | None = None
    epsilon_total: Annotated[float, Meta(ge=0.0)] | None = None
    noise_multiplier: Annotated[float, Meta(ge=0.0)] | None = None
    max_grad_norm: Annotated[float, Meta(ge=0.0)] | None = None


class ModelUpdate(Event, frozen=True):
    """A new live version of an adapter; weights travel by reference (URI and sha256).

    `cohort_first` to `cohort_last` (from 0) are those learned from since the parent, and
    `ledger_sha256` is the digest of the privacy ledger's entry for the last of them. `run` names
    the learning that it comes from, as tracking knows it. `artifact_sha256` is that of the weights;
    `artifact_config_sha256` that of the configuration beside them, which says by how much they
    are scaled.
    """

    adapter: Name
    model_version: Name
    origin: Literal["base", "online", "federated", "documents", "rollback"]
    published_ms: TimeMs
    parent_version: Name | None = None
    artifact_uri: Uri | None = None
    artifact_sha256: Sha256 | None = None
    privacy: PrivacySpent | None = None
    evaluation: Annotated[dict[Name, float], Meta(max_length=limits.EVALUATION_ENTRIES_MAX)] = {}
    reason: Reason | None = None
    cohort_first: Count | None = None
    cohort_last: Count | None = None
    ledger_sha256: Sha256 | None = None
    run: Id | None = None
    artifact_config_sha256: Sha256 | None = None


class FederatedRound(Event, frozen=True):
    """One step in the life of a federated round."""

    round_id: Id
    status: Literal["asked", "started", "finished", "failed"]
    adapter: Name
    at_ms: TimeMs
    reason: Reason | None = None
    clients: Count | None = None
    clients_failed: Count | None = None
    received_bytes: Count | None = None
    duration_s: Annotated[float, Meta(ge=0.0)] | None = None
    model_version: Name | None = None
    privacy: PrivacySpent | None = None
    run: Id | None = None


class Control(Event, frozen=True):
    """What holds for an adapter until its next record: whether it learns, and why."""

    adapter: Name
    learning: Literal["on", "paused"]
    at_ms: TimeMs
    reason: Reason | None = None


# The name of the statistic that says how long a document took to become retrievable.
DOCUMENT_FRESHNESS: Final = "document_freshness"
# That of how long feedback took to be part of a live version.
FEEDBACK_FRESHNESS: Final = "feedback_freshness"
# That of the statistic which says with which settings an adapter's learning began.
LEARNING_BEGUN: Final = "learning_begun"
# That of the statistic of one round of learning, whether its version was released or not.
LEARNING_ROUND: Final = "learning_round"
# That of the statistic of one judgement of what was studied, released or not.
STUDY_ROUND: Final = "study_round"
# That of the statistic which says that an adapter's privacy budget is spent.
LEARNING_ENDED: Final = "learning_ended"
# Those of a tuning: one candidate's loss in one rung, and the candidate that was left.
TUNING_RUNG: Final = "tuning_rung"
TUNING_ENDED: Final = "tuning_ended"
# Those of the windows (streams/windows): quality by version; feedback that met its answer; feedback
# that came too late or met none; drift against a reference; conversations; how long documents and
# feedback took to take effect; privacy spent by adapter; feedback by group of people.
QUALITY: Final = "quality"
FEEDBACK_JOINED: Final = "feedback_joined"
FEEDBACK_LATE: Final = "feedback_late"
DRIFT: Final = "drift"
CONVERSATIONS: Final = "conversations"
FRESHNESS: Final = "freshness"
PRIVACY_SPENT: Final = "privacy_spent"
LABEL_GROUPS: Final = "label_groups"
# That of a drift that a detector of monitor's found, and that of a progressive learner's state.
DRIFT_DETECTED: Final = "drift_detected"
PROGRESSIVE: Final = "progressive"
# Those of how well answers predict people's labels, and of which label was taken for which.
LABEL_QUALITY: Final = "label_quality"
LABEL_CONFUSION: Final = "label_confusion"
# All of them, for whoever asks for one by its name.
STATISTICS: Final = (
    *(QUALITY, FEEDBACK_JOINED, FEEDBACK_LATE, DRIFT, CONVERSATIONS, FRESHNESS, PRIVACY_SPENT),
    *(LABEL_GROUPS, DRIFT_DETECTED, DOCUMENT_FRESHNESS, FEEDBACK_FRESHNESS, LEARNING_BEGUN),
    *(LEARNING_ROUND, LEARNING_ENDED, STUDY_ROUND, TUNING_RUNG, TUNING_ENDED, PROGRESSIVE),
    *(LABEL_QUALITY, LABEL_CONFUSION),
)


class Statistic(Event, frozen=True):
    """One named measurement of a window (or of one moment, where start equals end)."""

    name: Name
    window_start_ms: TimeMs
    window_end_ms: TimeMs
    labels: Annotated[dict[Name, Label], Meta(max_length=limits.LABELS_MAX)] = {}
    values: Annotated[dict[Name, float], Meta(max_length=limits.METADATA_ENTRIES_MAX)] = {}


class DeadLetter(Event, frozen=True):
    """A record that no agent could process: the original bytes, where they came from, why.

    `key`, `value` and header values are base64 in the JSON. A null value was a tombstone, unless
    `value_kept` is false: then the record was too large to keep (all of its headers included) and
    is still at its offset, if anywhere.
    """

    topic: Name
    partition: Partition
    offset: Count
    agent: Name
    error: Name
    reason: Reason
    at_ms: TimeMs
    key: Framing | None = None
    value: Annotated[bytes, Meta(max_length=limits.DEAD_LETTER_VALUE_BYTES_MAX)] | None = None
    headers: Annotated[
        list[tuple[HeaderName, Framing | None]], Meta(max_length=limits.HEADERS_MAX)
    ] = []
    value_kept: bool = True
