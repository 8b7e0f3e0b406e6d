"""The serving variants that a bandit chooses between, as an operator writes them."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from schemas.errors import SettingsInvalid

VARIANTS_MAX: Final = 16
# The key of their policy.
LEARNER: Final = "variants"


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options for prompts that leave them out; `adapter` names whose live version answers."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    top_k: Annotated[int, Meta(ge=0, le=50)] | None = None
    score_floor: Annotated[float, Meta(ge=-1.0, le=1.0)] | None = None
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    adapter: Annotated[str, Meta(min_length=1, max_length=200)] | None = None

    @property
    def options(self) -> dict[str, int | float | str]:
        """What it sets, by name."""
        given = {name: getattr(self, name) for name in self.__struct_fields__[1:]}
        return {name: value for name, value in given.items() if value is not None}


def read_variants(text: str, floor: float) -> list[Variant]:
    """The variants in a JSON list, the first of them the baseline; none where `text` is empty.

    Raises SettingsInvalid for fewer than two, for names that come twice, and where `floor` chances
    of all of them leave nothing to choose.
    """
    if not text.strip():
        return []
    try:
        found = msgspec.json.decode(text, type=list[Variant])
    except msgspec.DecodeError as error:
        raise SettingsInvalid(
            f"HEADWATER_ADAPT_VARIANTS is no list of variants: {error}.",
            'Write JSON, such as [{"name": "usual"}, {"name": "wide", "top_k": 8}].',
        ) from error
    names = {variant.name for variant in found}
    faults = {
        f"{VARIANTS_MAX} variants are allowed": len(found) > VARIANTS_MAX,
        "one variant leaves no choice": len(found) == 1,
        "a name comes twice": len(names) < len(found),
        f"a floor of {floor:g} for each is over 1 together": floor * len(found) > 1.0,
    }
    if broken := [fault for fault, present in faults.items() if present]:
        raise SettingsInvalid(
            f"HEADWATER_ADAPT_VARIANTS: {'; '.join(broken)}.",
            "Name two variants or more, the baseline first; or lower HEADWATER_ADAPT_FLOOR.",
        )
    return found
