"""What an operator may set of what adapts."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from agents.settings import LearnedSettings
from schemas.errors import SettingsInvalid


class AdaptSettings(BaseSettings):
    """Reads `HEADWATER_ADAPT_*`; retrieve, adapt and learn must agree on them."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_ADAPT_", frozen=True, extra="forbid")

    variants: str = Field(
        "", description="serving variants on trial, JSON, the baseline first; default: none"
    )
    floor: float = Field(0.05, gt=0, le=0.5, description="least chance of each variant")
    memory_outcomes: float = Field(
        1000.0, gt=0, description="outcomes after which one tells the bandit 1/e of what it did"
    )
    guard_learning: bool = Field(
        False, description="`learn` takes what the guard let through, by its weight, nothing else"
    )
    beside_privacy: bool = Field(
        False,
        description="adapt and guard although learning is private, outside its guarantee "
        "(docs/PRIVACY.md)",
    )
    folder: Path = Field(Path(".headwater/adapt"), description="what was learned so far")
    report_interval_s: float = Field(
        10.0, gt=0, description="how often figures go to `analytics`, at most"
    )


def acts(settings: AdaptSettings, learn: LearnedSettings) -> bool:
    """Whether what people said may decide how others are served, and whose feedback counts."""
    return learn.mechanism == "none" or settings.beside_privacy


def guards_learning(settings: AdaptSettings, learn: LearnedSettings) -> bool:
    """Whether `learn` reads the guard's verdicts; raises SettingsInvalid where privacy forbids."""
    if settings.guard_learning and not acts(settings, learn):
        raise SettingsInvalid(
            "HEADWATER_ADAPT_GUARD_LEARNING would let one user's feedback decide what another's "
            f"counts, which the mechanism {learn.mechanism!r} does not account for.",
            "Set HEADWATER_ADAPT_BESIDE_PRIVACY=true to do so outside the guarantee, or leave the "
            "guard off.",
        )
    return settings.guard_learning
