"""Flower's robust strategies, on one flat array for each device."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg, Krum
from numpy.typing import NDArray

from agents.federated.task import RunSettings
from models.federation.aggregation import summed
from models.federation.layout import Flat
from schemas.errors import SettingsInvalid

_WEIGHT = "num-examples"


def combine(
    settings: RunSettings, deltas: Mapping[int, Flat], replies: Mapping[int, Message]
) -> NDArray[np.float64]:
    """What the round adds up to: the sum, or a robust middle times the number of clients.

    The caller divides by the number of clients, which is fixed, in either case. Every device weighs
    the same: their numbers of examples are their own business.
    """
    if settings.aggregation == "mean":
        return summed(deltas)
    for node, delta in deltas.items():
        replies[node].content = RecordDict(
            {"arrays": ArrayRecord({"delta": Array(delta)}), "metrics": MetricRecord({_WEIGHT: 1})}
        )
    middle, _ = _strategy(settings, len(deltas)).aggregate_train(
        1, [replies[node] for node in sorted(deltas)]
    )
    assert middle is not None
    return settings.clients * middle["delta"].numpy().astype(np.float64)


def _strategy(settings: RunSettings, deltas: int) -> FedAvg:
    if settings.aggregation == "median":
        return FedMedian()
    if settings.aggregation == "trimmed-mean":
        return FedTrimmedAvg(beta=settings.trim_share)
    if deltas < settings.poisoned_max + 3:
        raise SettingsInvalid(
            f"Krum withstands {settings.poisoned_max} poisoned devices among "
            f"{settings.poisoned_max + 3} or more; there are {deltas}.",
            "Ask more devices, or use the median.",
        )
    return Krum(num_malicious_nodes=settings.poisoned_max)
