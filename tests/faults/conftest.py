"""Fixtures of the tests beside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from broker import own_river, running
from fixtures import RunningBroker, broker, running_broker
from stage import Stage
from tiny_model import build_tiny_model
from workers import agent_parts

__all__ = ["broker", "running_broker", "stage"]

# Small batches, so that a worker that is killed is in the middle of its work.
SLOWER = {
    "HEADWATER_INGEST_BATCH_DOCUMENTS_MAX": "8",
    "HEADWATER_RETRIEVE_BATCH_PROMPTS_MAX": "8",
}


@pytest.fixture(scope="session")
def stage(
    running_broker: RunningBroker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """One worker of each agent, on a river of their own, for all tests of this folder."""
    river = own_river(running_broker.node.address)
    folder = tmp_path_factory.mktemp("stage")
    model = build_tiny_model(tmp_path_factory.mktemp("endless"), endless=True)
    parts = [replace(p, env={**p.env, **SLOWER}) for p in agent_parts(river, model)]
    with running(parts, folder) as workers:
        yield Stage(river, workers, running_broker.supervisor, parts, folder)
