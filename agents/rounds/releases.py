"""What a federation's ledger has released and nobody was told of yet."""

from __future__ import annotations

from agents.learning.releases import release_update
from agents.rounds.adapter_rounds import Federation
from models.artifacts import sha256_of_config, stored
from schemas.events import ModelUpdate


def unpublished(federation: Federation, artifacts: str | None) -> list[ModelUpdate]:
    """The events, oldest first; weights are stored at `artifacts`, or stay where they are.

    For the federation's thread.
    """
    releases = federation.store.unpublished(federation.name)
    rounds = federation.rounds_done() if releases else []
    found = []
    for release in releases:
        record = release.record
        folder = federation.rounds.folder(record.model_version, record.context)
        uri = stored(folder, artifacts)
        config = sha256_of_config(folder)
        found.append(release_update(federation.opening, rounds, release, uri, config))
    return found
