"""Secure aggregation: the server sees the devices' sum and no single delta.

The protocol is SecAgg+ (Bell et al. 2020). Flower 1.41 has it as a workflow of its older interface,
which is driven here by hand: four exchanges with every device instead of one. Two things are mended
on the way: a device that vanished before it handed out shares of its keys is forgotten, where
Flower would want shares that nobody has; and no exchange waits for a device that is gone once
enough others have answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.common import FitIns, FitRes, Parameters, parameters_to_ndarrays
from flwr.server import LegacyContext, ServerConfig
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import WorkflowState
from flwr.serverapp import Grid
from numpy.typing import NDArray

from agents.federated.task import LEVELS
from schemas.errors import QuorumMissed

Send = Callable[[Sequence[Message]], list[Message]]


@dataclass
class SecureSum:
    """`total` is the sum over `nodes`, which is all that the server learns of their deltas."""

    total: NDArray[np.float64]
    nodes: list[int]
    received_bytes: int


@dataclass
class _Exchange:
    """What the workflow takes for a grid: sends by `send`, and counts what comes back."""

    send: Send
    received_bytes: int = 0

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        replies = self.send(list(messages))
        self.received_bytes += sum(map(_bytes_of, replies))
        return replies


@dataclass
class _Asked(FedAvg):
    """What the workflow takes for a strategy: whom it asks, and where the outcome goes."""

    nodes: Sequence[int]
    found: list[tuple[int, FitRes]] = field(default_factory=list)

    def configure_fit(self, *_: Any, **__: Any) -> list[tuple[ClientProxy, FitIns]]:
        fit = FitIns(Parameters([], ""), {})
        return [(cast(ClientProxy, SimpleNamespace(node_id=node)), fit) for node in self.nodes]

    def aggregate_fit(
        self, _round: int, results: list[tuple[Any, FitRes]], _failures: Any
    ) -> tuple[None, dict[str, Any]]:
        self.found = [(proxy.node_id, result) for proxy, result in results]
        return None, {}


class _Workflow(SecAggPlusWorkflow):
    """Flower's, with our question in place of its own."""

    contents: Mapping[int, RecordDict]

    def share_keys_stage(self, grid: Grid, context: LegacyContext, state: WorkflowState) -> bool:
        state.nid_to_fitins = dict(self.contents)
        enough = super().share_keys_stage(grid, context, state)
        # Nobody has masks with the others, or shares of their keys.
        state.sampled_node_ids = set(state.active_node_ids)
        state.nid_to_neighbours = {
            node: near & state.active_node_ids for node, near in state.nid_to_neighbours.items()
        }
        return enough


def secure_sum(contents: Mapping[int, RecordDict], norm_max: float, send: Send) -> SecureSum:
    """The sum of the deltas of the devices that are asked by `contents`, by node id.

    A sum can be had while more than half of the devices last. Raises QuorumMissed.
    """
    asked = _Asked(nodes=list(contents))
    context = LegacyContext(
        Context(run_id=0, node_id=0, node_config={}, state=RecordDict(), run_config={}),
        ServerConfig(num_rounds=1),
        asked,
    )
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})
    context.state.array_records[MAIN_PARAMS_RECORD] = ArrayRecord()
    # Shares for everybody; half of the devices or fewer can open nothing, even with the server.
    threshold = max(2, len(contents) // 2 + 1)
    workflow = _Workflow(
        1.0, threshold, max_weight=1, clipping_range=norm_max, quantization_range=LEVELS
    )
    workflow.contents = contents
    exchange = _Exchange(send)
    workflow(cast(Grid, exchange), context)
    if not asked.found:
        raise QuorumMissed(
            f"Too few of {len(contents)} devices lasted: no sum can be unmasked without "
            f"{threshold} of them.",
            "Nothing was used and no privacy spent. Ask again.",
        )
    (mean,) = parameters_to_ndarrays(asked.found[0][1].parameters)
    nodes = sorted(node for node, _ in asked.found)
    return SecureSum(len(nodes) * mean.astype(np.float64), nodes, exchange.received_bytes)


def _bytes_of(reply: Message) -> int:
    if reply.has_error():
        return 0
    values = [v for record in reply.content.config_records.values() for v in record.values()]
    lists = [v if isinstance(v, list) else [v] for v in values]
    return sum(len(part) for parts in lists for part in parts if isinstance(part, bytes))
