"""One round at the SuperLink: started, watched, and stopped when it takes too long."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.rounds.settings import FederateSettings
from agents.rounds.superlink import APP, Node, RunStatus, SuperLink, open_superlink
from models.federation.outcome import OUTCOME_FILE, SUM_FILE, Outcome
from models.learning.lora import LoraShape
from schemas.errors import FederationUnreachable, QuorumMissed, WorkerFailed

ADAPTER_FILE: Final = "adapter_model.safetensors"
_POLL_S: Final = 0.3
# Starting a ServerApp and writing the sum, beside the time that devices have.
_OVERHEAD_S: Final = 60.0

log = logging.getLogger("headwater.federate")


@dataclass(frozen=True, slots=True)
class RoundResult:
    """`total` is the sum of the devices' deltas, or its robust like, shape (parameters,)."""

    total: NDArray[np.float64]
    outcome: Outcome


def round_folder(settings: FederateSettings, attempt: str) -> Path:
    """Where an attempt leaves its sum. It holds unprotected data: remove it afterwards."""
    base = _rounds_folder(settings)
    base.mkdir(parents=True, mode=0o700, exist_ok=True)
    folder = base / hashlib.sha256(attempt.encode()).hexdigest()[:16]
    folder.mkdir(exist_ok=True)
    return folder


def clear_up(settings: FederateSettings) -> None:
    """Ends what a killed agent left: its run, and the sums that the run would write."""
    link = open_superlink(settings)
    try:
        for run_id in link.running():
            link.stop(run_id)
    except FederationUnreachable as error:
        log.warning("%s", error)
    finally:
        link.close()
    shutil.rmtree(_rounds_folder(settings), ignore_errors=True)


def _rounds_folder(settings: FederateSettings) -> Path:
    return settings.superlink_folder.expanduser().absolute() / "rounds"


async def enough_devices(
    link: SuperLink, choose: Callable[[list[Node]], dict[int, str]], settings: FederateSettings
) -> dict[int, str]:
    """Owners by node, once as many as the quorum are online. Raises QuorumMissed after the time,
    and at once where all that are admitted would be too few."""
    chosen: dict[int, str] = {}
    try:
        async with asyncio.timeout(settings.wait_s):
            while True:
                nodes = await asyncio.to_thread(link.nodes)
                chosen = choose(nodes)
                if len(chosen) >= settings.quorum:
                    return chosen
                _check_admitted(len(choose([replace(n, online=True) for n in nodes])), settings)
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise QuorumMissed(
            f"{len(chosen)} devices that may take part were online in {settings.wait_s:g} s; "
            f"the round needs {settings.quorum}.",
            "Ask again when more are there. No privacy was spent.",
        ) from None


def _check_admitted(owners: int, settings: FederateSettings) -> None:
    if owners < settings.quorum:
        raise QuorumMissed(
            f"Devices of {owners} owners are admitted and may take part; the round needs "
            f"{settings.quorum}.",
            "Admit more: `headwater edge admit`. No privacy was spent.",
        )


async def run_round(
    link: SuperLink,
    settings: FederateSettings,
    shape: LoraShape,
    round_id: str,
    folder: Path,
    nodes: dict[int, str],
    app: Path = APP,
) -> RoundResult:
    """The round's sum, which `app` makes. Raises QuorumMissed, WorkerFailed, FederationUnreachable;
    then there is none, and the run has ended."""
    config = run_config(settings, shape, round_id, folder, nodes)
    run_id = await asyncio.to_thread(link.start, config, app)
    try:
        async with asyncio.timeout(2 * settings.timeout_s + _OVERHEAD_S):
            status = await _ended(link, run_id)
    except TimeoutError:
        await asyncio.to_thread(link.stop, run_id)
        raise WorkerFailed("The round took too long and was stopped.", "Ask again.") from None
    except asyncio.CancelledError:
        await asyncio.to_thread(link.stop, run_id)
        raise
    return read_result(folder, status)


async def _ended(link: SuperLink, run_id: int) -> RunStatus:
    while True:
        try:
            status = await asyncio.to_thread(link.status, run_id)
            if status.ended:
                return status
        except FederationUnreachable:
            # It is restarted: the run is marked as failed then, or the deadline ends the waiting.
            await asyncio.sleep(1.0)
        await asyncio.sleep(_POLL_S)


def read_result(folder: Path, status: RunStatus) -> RoundResult:
    """What a run left in `folder`. Raises WorkerFailed and QuorumMissed where there is no sum."""
    path = folder / OUTCOME_FILE
    if not path.exists():
        raise WorkerFailed(
            f"The round {status.ended or 'ended'} without an outcome: {status.details[:500]}.",
            "The SuperLink's log says more.",
        )
    outcome = msgspec.json.decode(path.read_bytes(), type=Outcome)
    if outcome.reason is not None or status.ended != "completed":
        raise QuorumMissed(outcome.reason or status.details)
    return RoundResult(np.load(folder / SUM_FILE, allow_pickle=False), outcome)


def run_config(
    settings: FederateSettings,
    shape: LoraShape,
    round_id: str,
    folder: Path,
    nodes: dict[int, str],
) -> dict[str, str | int | float | bool]:
    """What `agents/federated/pyproject.toml` lists."""
    return {
        "round-id": round_id,
        "adapter": str(folder / ADAPTER_FILE),
        "result": str(folder),
        "nodes": ",".join(map(str, nodes)),
        "clients": settings.devices,
        "clients-min": settings.quorum,
        "timeout-s": settings.timeout_s,
        "grace-s": settings.grace_s,
        "rank": shape.rank,
        "alpha": shape.alpha,
        "targets": ",".join(shape.targets),
        "norm-max": settings.norm_max,
        "noise-multiplier": settings.device_noise,
        "epochs": settings.epochs,
        "batch-rows": settings.batch_rows,
        "examples-max": settings.examples_max,
        "learning-rate": settings.learning_rate,
        "proximal": settings.proximal if settings.strategy == "fedprox" else 0.0,
        "compression": settings.compression,
        "aggregation": settings.aggregation,
        "trim-share": settings.trim_share,
        "poisoned-max": settings.poisoned_max,
        "secure": settings.secure,
    }
