"""What an adapter promised in its ledger before it saw any data, and whether that still holds."""

from __future__ import annotations

import hashlib

from agents.rounds.settings import FederateSettings
from agents.settings import LearnSettings
from models.learning.adapter_files import artifact_bytes
from models.precision import choose_device, dtype_name
from models.privacy.ledger import Opening
from models.privacy.ledger_store import LedgerStore
from models.privacy.noise import Tensors
from models.privacy.plan import make_plan
from models.privacy.randomness import NoiseKey
from schemas.errors import LedgerBroken

Promised = dict[str, str | int | float | bool]
# What adapters had that began before these settings were written down.
_BEFORE: Promised = {"guarded": False, "trained": "both"}


def open_promise(
    store: LedgerStore,
    name: str,
    rules: LearnSettings | FederateSettings,
    cohort_size: int,
    key: NoiseKey,
    adapter: Tensors,
    promised: Promised,
) -> Opening:
    """What the ledger `name` began with, or begins with now.

    `promised` are the settings that may not change. Raises LedgerBroken where they have.
    """
    begun = store.opening(name)
    if begun is not None:
        check_promise(begun, promised, key)
        return begun
    return Opening(
        adapter=name,
        plan=make_plan(
            rules.mechanism,
            epsilon=rules.epsilon,
            delta=rules.delta,
            rounds_max=rules.rounds_max,
            participations_max=rules.participations_max,
            separation_min=rules.separation_min,
        ),
        key_commitment=key.commitment,
        artifact_sha256=hashlib.sha256(artifact_bytes(adapter)).hexdigest(),
        cohort_size=cohort_size,
        settings=promised,
    )


def in_its_format(settings: LearnSettings, begun: Opening | None) -> LearnSettings:
    """With the number format that the adapter began with, or begins with now, in place of "auto".

    On another machine "auto" may be another one: a round done again would then be another round,
    with the noise of the first.
    """
    kept = None if begun is None else begun.settings.get("dtype")
    if settings.dtype != "auto" or kept is None:
        kept = dtype_name(settings.dtype, choose_device(settings.device))
    return settings.model_copy(update={"dtype": kept})


def known_settings(begun: Opening) -> Promised:
    """All that an adapter began with."""
    return _BEFORE | begun.settings


def check_promise(begun: Opening, promised: Promised, key: NoiseKey) -> None:
    """Raises LedgerBroken where settings or key are not those that an adapter began with."""
    # Earlier ledgers do not tell the number format, so none can be held against them.
    known = {"dtype": promised.get("dtype")} | known_settings(begun)
    changed = [
        f"{name} was {known.get(name)} and is {value}"
        for name, value in promised.items()
        if known.get(name) != value
    ]
    if key.commitment != begun.key_commitment:
        changed.append("the noise key is another")
    if changed:
        raise LedgerBroken(
            f"Adapter {begun.adapter} began with other settings: {'; '.join(changed)}.",
            "Restore them, or begin an adapter with a new name (HEADWATER_LEARN_ADAPTER).",
        )
