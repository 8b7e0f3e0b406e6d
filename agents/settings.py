"""What an operator may set, one frozen class per agent; environment names beside the defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.cache import user_cache_dir
from models.defaults import PASSAGE_TOKENS_MAX
from schemas.limits import TOP_K_MAX


class WorkerSettings(BaseSettings):
    """What all agents share. Reads `HEADWATER_WORKER_*`."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_WORKER_", frozen=True, extra="forbid")

    session_timeout_s: float = Field(
        10.0, gt=0, description="a worker silent for so long is replaced"
    )
    commit_interval_s: float = Field(0.5, gt=0, description="how often offsets are committed")
    instance_id: str | None = Field(
        None, description="static group membership: a restart keeps its partitions"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe line that is logged"
    )


class EmbedderSettings(BaseSettings):
    """The embedder that ingest and retrieve must agree on. Reads `HEADWATER_EMBEDDER_*`."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_EMBEDDER_", frozen=True, extra="forbid")

    name: str = Field("minilm", description="`minilm`, or a sentence-transformers folder or name")
    device: str = Field("auto", description="`cpu`, `cuda`, or `auto`")
    threads: int | None = Field(None, ge=1, description="CPU threads; default: torch's choice")


class IngestSettings(BaseSettings):
    """Reads `HEADWATER_INGEST_*`."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_INGEST_", frozen=True, extra="forbid")

    batch_documents_max: int = Field(32, ge=1, description="documents embedded together")
    passage_tokens_max: int = Field(
        PASSAGE_TOKENS_MAX, ge=16, description="length of a passage, embedder tokens"
    )


class RetrieveSettings(BaseSettings):
    """Reads `HEADWATER_RETRIEVE_*`."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_RETRIEVE_", frozen=True, extra="forbid")

    index: Literal["faiss", "qdrant", "qdrant-edge"] = Field(
        "faiss", description="dense index: in memory, a Qdrant server, or Qdrant in process"
    )
    qdrant_url: str = Field("http://localhost:6333", description="for `qdrant`")
    qdrant_api_key: SecretStr | None = Field(None, description="for `qdrant`")
    qdrant_collection: str = Field("headwater-passages", description="for `qdrant`")
    qdrant_folder: Path = Field(Path(".headwater/qdrant"), description="for `qdrant-edge`")
    batch_prompts_max: int = Field(32, ge=1, description="queries embedded together")


class GenerateSettings(BaseSettings):
    """Reads `HEADWATER_GENERATE_*`."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_GENERATE_", frozen=True, extra="forbid")

    engine: Literal["local", "remote"] = Field(
        "local", description="`remote` is a server with OpenAI's API, such as vLLM"
    )
    model: str = Field("smollm2", description="`smollm2`, or a Hugging Face folder or name")
    device: str = Field("auto", description="`cpu`, `cuda`, or `auto`")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="bfloat16 where the processor multiplies it faster than float32, else float32",
    )
    threads: int | None = Field(None, ge=1, description="CPU threads; default: torch's choice")
    lanes: int | None = Field(
        None,
        ge=1,
        description="batches beside each other, which share threads, slots and memory; default: "
        "what is fastest here",
    )
    slots: int = Field(16, ge=1, description="answers generated together")
    context_tokens_max: int = Field(2048, ge=64, description="prompt and answer together")
    kv_mib_max: int | None = Field(
        None,
        ge=1,
        description="memory for keys and values; default: 512 tokens for each of `slots`, "
        "at least two whole contexts",
    )
    prompt_tokens_step: int = Field(
        256, ge=1, description="tokens of prompts read in one step, beside the running answers"
    )
    guesses_max: int = Field(
        3,
        ge=0,
        description="next tokens of each answer guessed from its text so far, while few are open; "
        "answers stay the same but for rounding, 0 switches it off",
    )
    cuda_graphs: bool = Field(
        True, description="on a GPU, passes are recorded and replayed; nothing is guessed then"
    )
    compile: Literal["auto", "true", "false"] = Field(
        "auto", description="small operations compiled to few kernels; `auto` does it on a GPU"
    )
    weights: Literal["auto", "full", "4bit"] = Field(
        "auto",
        description="4 bits for few answers at once; `auto` where nothing is lost by it and "
        "float32 was not asked for",
    )
    adapters_max: int = Field(32, ge=1, description="adapter versions in memory together")
    adapter_rank_max: int = Field(64, ge=1, description="highest rank of an adapter that is taken")
    adapters_dir: Path | None = Field(
        None,
        description="where fetched adapters are kept; default: in the cache folder; a remote "
        "server must see it under the same path",
    )
    adapters_wait_s: float = Field(
        60.0, ge=0, description="how long a start waits for the live adapters"
    )
    added_adapter: str = Field(
        "documents", description="adapter that is added to every other one; empty: none"
    )
    passages_max: int | None = Field(
        None,
        ge=0,
        description="passages shown to the model; default: 1 for `smollm2`, which answers worse "
        "from more, else all that fit",
    )
    in_flight_max: int = Field(256, ge=1, description="prompts taken on before reading pauses")
    cache_dir: Path = Field(
        default_factory=user_cache_dir,
        validation_alias="HEADWATER_CACHE_DIR",
        description="where converted weights are kept",
    )
    chunk_interval_ms: float = Field(20.0, ge=0, description="least time between two chunks")
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="where Prometheus finds `/metrics`; default: nowhere"
    )
    metrics_host: str = Field("127.0.0.1", description="the address that `/metrics` listens on")

    @property
    def adapters_folder(self) -> Path:
        """`adapters_dir`, or its place in the cache."""
        return (self.adapters_dir or self.cache_dir / "adapters").expanduser().absolute()

    @property
    def passages_shown_max(self) -> int:
        """`passages_max`, or what suits the model."""
        if self.passages_max is not None:
            return self.passages_max
        return 1 if self.engine == "local" and self.model == "smollm2" else TOP_K_MAX


class RemoteEngineSettings(BaseSettings):
    """The server of a remote engine. Reads `HEADWATER_GENERATE_REMOTE_*`."""

    model_config = SettingsConfigDict(
        env_prefix="HEADWATER_GENERATE_REMOTE_", frozen=True, extra="forbid"
    )

    url: str = Field("http://localhost:8000/v1", description="its address, up to and with `/v1`")
    api_key: SecretStr | None = Field(None, description="sent as a bearer token")
    model: str | None = Field(
        None, description="the model's name at the server; default: the only one it serves"
    )
    server: Literal["auto", "vllm", "llama-cpp-python", "openai"] = Field(
        "auto", description="which sampling options it knows; `auto` asks it"
    )
    tokenizer: str | None = Field(
        None,
        description="`smollm2`, or a Hugging Face folder or name, to count prompts exactly; "
        "default: an estimate",
    )
    requests_max: int = Field(64, ge=1, description="requests open at the server together")
    start_timeout_s: float = Field(120.0, gt=0, description="how long to wait for it at the start")
    connect_timeout_s: float = Field(5.0, gt=0, description="how long one connection may take")
    first_token_timeout_s: float = Field(
        120.0, gt=0, description="from a request to its first token"
    )
    token_timeout_s: float = Field(30.0, gt=0, description="from a token to the next")
    retry_for_s: float = Field(
        60.0, ge=0, description="how long a request is sent again before its first token"
    )


class JoinSettings(BaseSettings):
    """Reads `HEADWATER_JOIN_*`."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_JOIN_", frozen=True, extra="forbid")

    folder: Path = Field(
        Path(".headwater/join"), description="its table; each worker needs a folder of its own"
    )
    pseudonym_key: SecretStr | None = Field(
        None, description="secret behind users' pseudonyms, the same for all workers"
    )
    pseudonym_key_file: Path = Field(
        Path(".headwater/pseudonym.key"),
        description="where the secret is without the setting above; made when there is none",
    )
    wait_s: float = Field(
        600.0, gt=0, description="how long feedback waits for an answer that is not known yet"
    )
    waiting_max: int = Field(10_000, ge=1, description="answers that feedback waits for")
    waiting_per_answer_max: int = Field(16, ge=1, description="feedback that waits for one answer")
    remembered_days: float = Field(30.0, gt=0, description="how long answers can be rated")
    remembered_max: int = Field(200_000, ge=1, description="answers that can be rated")


class LearnedSettings(BaseSettings):
    """What others than `learn` need of its settings: a wrong one of the rest is not theirs."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_LEARN_", frozen=True, extra="forbid")

    adapter: str = Field("default", min_length=1, description="name of the adapter that learns")
    mechanism: Literal["none", "gaussian", "correlated"] = Field(
        "correlated", description="what protects users; `none` promises nothing"
    )


class LearnSettings(LearnedSettings):
    """Reads `HEADWATER_LEARN_*`."""

    epsilon: float = Field(8.0, gt=0, description="privacy budget of a user, over all rounds")
    delta: float = Field(1e-6, gt=0, lt=1, description="chance that the budget does not hold")
    rounds_max: int = Field(256, ge=1, description="rounds after which learning ends")
    cohort_size: int = Field(32, ge=1, description="users of a round")
    examples_per_user_max: int = Field(8, ge=1, description="of one user in one round")
    participations_max: int = Field(1, ge=1, description="rounds that one user may be in")
    separation_min: int = Field(1, ge=1, description="a user's rounds are so many apart or more")
    max_grad_norm: float = Field(0.5, gt=0, description="limit of one user's gradient in a round")
    rank: int = Field(4, ge=1, description="rank of the LoRA adapter; its alpha is twice that")
    targets: str = Field("q_proj,v_proj", description="layers that it changes, with commas")
    trained: Literal["both", "b"] | None = Field(
        None, description="its matrices that learning changes; default: `b` under an epsilon of 8"
    )
    optimizer: Literal["sgd", "adam"] | None = Field(
        None, description="default: what suits the mechanism"
    )
    learning_rate: float | None = Field(None, gt=0, description="default: as the optimizer's")
    tokens_max: int = Field(512, ge=16, description="prompt and answer of an example together")
    gate_set: Path | None = Field(
        None,
        description="public questions with answers, JSONL; default: some on Python's standard "
        "library, which `headwater agent learn` writes into the folder",
    )
    gate_tolerance: float = Field(0.0, ge=0, description="how much worse a version may be, nats")
    folder: Path = Field(
        Path(".headwater/learning"), description="ledger, noise keys and versions; keep it safe"
    )
    artifacts: str | None = Field(
        None, description="where versions are published, such as s3://bucket/x; default: the folder"
    )
    model: str | None = Field(None, description="default: that of HEADWATER_GENERATE_MODEL")
    device: str = Field("auto", description="`cpu`, `cuda`, or `auto`")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="of the frozen model (the adapter is float32); `auto` keeps what it began with",
    )
    threads: int = Field(1, ge=1, description="CPU threads")
    nice: int = Field(10, ge=0, le=19, description="how far learning yields to serving")
    cache_dir: Path = Field(
        default_factory=user_cache_dir,
        validation_alias="HEADWATER_CACHE_DIR",
        description="where converted weights and fetched versions are kept",
    )
