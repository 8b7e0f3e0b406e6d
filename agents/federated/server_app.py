"""The server's side of one round: ask devices, check what they send, add it up under a quorum.

It knows no noise key and no ledger: the sum is written for the federate agent, which adds the noise
and releases (`agents/federate.py`). With fewer good deltas than `clients-min` there is no sum.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import numpy as np
from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray
from safetensors.numpy import load_file

from agents.federated.collect import collect, online
from agents.federated.robust import combine
from agents.federated.task import RunSettings, delta_of, run_settings, work_message
from models.federation.aggregation import Admitted, admit
from models.federation.layout import flatten, layout_digest
from models.federation.outcome import OUTCOME_FILE, SUM_FILE, Outcome
from schemas.errors import DataInvalid, HeadwaterError, QuorumMissed

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """One round. The run fails, with the reason in the outcome, where it has no result."""
    settings = run_settings(context.run_config)
    settings.result.mkdir(parents=True, exist_ok=True)
    begun_s = time.monotonic()
    outcome = Outcome(round_id=settings.round_id)
    try:
        outcome = do_round(grid, settings, outcome)
    except HeadwaterError as error:
        _write_outcome(settings.result, outcome, begun_s, str(error))
        raise
    _write_outcome(settings.result, outcome, begun_s, None)


def do_round(grid: Grid, settings: RunSettings, outcome: Outcome) -> Outcome:
    """Fills in `outcome` and writes the sum. Raises QuorumMissed, SettingsInvalid."""
    arrays = load_file(settings.adapter)
    flat = flatten(arrays)
    work = settings.work(layout_digest(arrays))
    nodes = online(grid, settings.node_ids, settings.clients_min, settings.timeout_s)
    asked = nodes[: settings.clients]
    if len(asked) < settings.clients_min:
        raise QuorumMissed(
            f"{len(asked)} devices are online; the round needs {settings.clients_min}.",
            "Ask again when more are there.",
        )
    replies = collect(
        grid,
        [work_message(work, flat, node) for node in asked],
        settings.clients_min,
        settings.timeout_s,
        settings.grace_s,
    )
    by_node = {reply.metadata.src_node_id: reply for reply in replies}
    payloads, failed = _payloads(by_node)
    failed |= dict.fromkeys(set(asked) - by_node.keys(), "It did not answer in time.")
    admitted = admit(payloads, flat.size, settings.norm_max)
    outcome.fill(payloads, admitted.deltas.keys(), failed | admitted.refused)
    _check_quorum(admitted, outcome, settings.clients_min)
    _write_sum(settings.result, combine(settings, admitted.deltas, by_node))
    return outcome


def _payloads(replies: dict[int, Message]) -> tuple[dict[int, bytes], dict[int, str]]:
    found: dict[int, bytes] = {}
    failed: dict[int, str] = {}
    for node, reply in replies.items():
        try:
            if reply.has_error():
                failed[node] = reply.error.reason or "It failed without a reason."
            else:
                found[node] = delta_of(reply)
        except DataInvalid as error:
            failed[node] = error.message
    return found, failed


def _check_quorum(admitted: Admitted, outcome: Outcome, clients_min: int) -> None:
    if len(admitted.deltas) < clients_min:
        reasons = "; ".join(sorted(set(outcome.failed.values())))
        raise QuorumMissed(
            f"{len(admitted.deltas)} devices sent a good delta; the round needs {clients_min}. "
            f"{reasons}",
            "Nothing was used and no privacy spent. Ask again.",
        )


def _write_sum(folder: Path, total: NDArray[np.float64]) -> None:
    # Without noise yet: for the owner of this process alone.
    descriptor = os.open(folder / SUM_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        np.save(file, total)


def _write_outcome(folder: Path, outcome: Outcome, begun_s: float, reason: str | None) -> None:
    outcome.reason = reason
    outcome.seconds = time.monotonic() - begun_s
    partial = folder / f".{OUTCOME_FILE}"
    partial.write_bytes(msgspec.json.encode(outcome))
    partial.rename(folder / OUTCOME_FILE)
