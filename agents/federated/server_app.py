"""The server's side of one round: ask devices, check what they send, add it up under a quorum.

It knows no noise key and no ledger: the sum is written for the federate agent, which adds the noise
and releases (`agents/federate.py`). With fewer good deltas than `clients-min` there is no sum.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import msgspec
import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.app import UserConfig as RunConfig
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray
from safetensors.numpy import load_file

from agents.federated.collect import collect, online
from agents.federated.robust import combine
from agents.federated.secure import Send, secure_sum
from agents.federated.task import (
    RunSettings,
    delta_of,
    run_settings,
    work_content,
    work_message,
)
from models.federation.aggregation import admit
from models.federation.layout import Flat, flatten, layout_digest
from models.federation.outcome import OUTCOME_FILE, SUM_FILE, Outcome
from models.federation.work import LocalWork
from schemas.errors import DataInvalid, HeadwaterError, QuorumMissed

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """One round. The run fails, with the reason in the outcome, where it has no result."""
    run_once(grid, context.run_config)


def run_once(grid: Grid, config: RunConfig) -> None:
    """Does what a run is for; raises what ends it, once the outcome says so."""
    settings = run_settings(config)
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
    # Those that the agent chose were online a moment ago.
    wait_s = settings.grace_s if settings.node_ids else settings.timeout_s
    nodes = online(grid, settings.node_ids, settings.clients_min, wait_s)
    asked = nodes[: settings.clients]
    if len(asked) < settings.clients_min:
        raise QuorumMissed(
            f"{len(asked)} devices are online; the round needs {settings.clients_min}.",
            "Ask again when more are there.",
        )
    _ask(grid, settings, work, flat, asked, outcome)
    return outcome


def _ask(
    grid: Grid,
    settings: RunSettings,
    work: LocalWork,
    flat: Flat,
    asked: list[int],
    outcome: Outcome,
) -> None:
    enough, timeout_s, grace_s = settings.clients_min, settings.timeout_s, settings.grace_s
    if settings.secure:
        total = _secure_total(
            {node: work_content(work, flat) for node in asked},
            settings,
            lambda messages: collect(grid, messages, enough, timeout_s, grace_s),
            outcome,
        )
        _write_sum(settings.result, total)
        return
    questions = [work_message(work_content(work, flat), node) for node in asked]
    replies = collect(grid, questions, enough, timeout_s, grace_s, least=enough)
    by_node = {reply.metadata.src_node_id: reply for reply in replies}
    payloads, failed = _payloads(by_node)
    failed |= dict.fromkeys(set(asked) - by_node.keys(), "It did not answer in time.")
    admitted = admit(payloads, flat.size, settings.norm_max, settings.noise_multiplier)
    outcome.fill(payloads, admitted.deltas.keys(), failed | admitted.refused)
    _check_quorum(len(admitted.deltas), outcome, enough)
    _write_sum(settings.result, combine(settings, admitted.deltas, by_node))


def _secure_total(
    contents: dict[int, RecordDict], settings: RunSettings, send: Send, outcome: Outcome
) -> NDArray[np.float64]:
    """The sum that the devices' masks leave. What is in it cannot be seen, so its length is all
    that can be checked: the devices' own clipping is taken on trust."""
    found = secure_sum(contents, settings.norm_max, send)
    digest = hashlib.sha256(found.total.tobytes()).hexdigest()
    outcome.digests = {str(node): digest for node in found.nodes}
    missing = sorted(set(contents) - set(found.nodes))
    outcome.failed = {str(node): "It did not last until its delta came." for node in missing}
    outcome.received_bytes = found.received_bytes
    _check_quorum(len(found.nodes), outcome, settings.clients_min)
    norm, norm_max = float(np.linalg.norm(found.total)), len(found.nodes) * settings.norm_max
    if not norm <= norm_max:
        raise QuorumMissed(
            f"The sum has the norm {norm:.3g}; honest devices make {norm_max:.3g} at most.",
            "A device does not cut its delta. A round without secure sums finds out which.",
        )
    return found.total


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


def _check_quorum(good: int, outcome: Outcome, clients_min: int) -> None:
    if good < clients_min:
        reasons = "; ".join(sorted(set(outcome.failed.values())))
        raise QuorumMissed(
            f"{good} devices sent a good delta; the round needs {clients_min}. {reasons}",
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
