"""What an operator may set of the agent that studies passages; environment names as elsewhere."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.cache import user_cache_dir

_GENERAL_SET_FILE = "general.jsonl"


class StudySettings(BaseSettings):
    """Reads `HEADWATER_STUDY_*`."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_STUDY_", frozen=True, extra="forbid")

    enabled: bool = Field(
        False, description="whether `headwater up` starts it: it takes a core while documents come"
    )
    adapter: str = Field("documents", min_length=1, description="name of the adapter that studies")
    rank: int = Field(8, ge=1, description="rank of the LoRA adapter; its alpha is twice that")
    targets: str = Field(
        "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj",
        description="layers that it changes, with commas",
    )
    learning_rate: float = Field(5e-4, gt=0, description="of Adam")
    passages_new: int = Field(8, ge=1, description="new passages of a lesson")
    passages_old: int = Field(2, ge=0, description="of those studied before, drawn for a lesson")
    texts_general: int = Field(
        4, ge=0, description="general texts and answers of a lesson, against forgetting"
    )
    replayed_max: int = Field(512, ge=1, description="passages kept to be drawn again")
    held_out_of: int = Field(
        8, ge=2, description="of so many documents one is never studied: the gate asks for it"
    )
    lessons_per_version: int = Field(8, ge=1, description="after so many the gate judges")
    idle_s: float = Field(10.0, gt=0, description="silence after which the gate judges as well")
    tolerance: float = Field(
        0.02, ge=0, description="how much worse than the base on general texts and answers, nats"
    )
    general_set: Path | None = Field(
        None,
        description="general texts and answers, JSONL; default: some of Python's documentation, "
        "which `headwater agent study` writes into the folder",
    )
    folder: Path = Field(
        Path(".headwater/study"), description="what was studied, and versions; keep it safe"
    )
    artifacts: str | None = Field(
        None, description="where versions are published, such as s3://bucket/x; default: the folder"
    )
    model: str | None = Field(None, description="default: that of HEADWATER_GENERATE_MODEL")
    device: str = Field("auto", description="`cpu`, `cuda`, or `auto`")
    dtype: str = Field("auto", description="of the frozen model; the adapter is float32")
    threads: int = Field(1, ge=1, description="CPU threads")
    nice: int = Field(19, ge=0, le=19, description="how far studying yields to serving")
    cache_dir: Path = Field(
        default_factory=user_cache_dir,
        validation_alias="HEADWATER_CACHE_DIR",
        description="where converted weights and fetched versions are kept",
    )

    @property
    def study_folder(self) -> Path:
        """`folder`, absolute."""
        return self.folder.expanduser().absolute()

    @property
    def general_set_path(self) -> Path:
        """`general_set`, or its place in the folder."""
        named = self.general_set
        return self.study_folder / _GENERAL_SET_FILE if named is None else named.expanduser()
