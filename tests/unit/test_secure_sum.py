"""Secure sums by Flower's SecAgg+ with the real ClientApp: what the server learns; drop-outs."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from app_grid import AppGrid, trainers
from flwr.common.secure_aggregation.secaggplus_constants import Stage
from safetensors.numpy import save_file

from agents.federated.server_app import do_round
from agents.federated.task import run_settings
from agents.rounds.settings import FederateSettings
from agents.rounds.superlink import APP
from models.federation.deltas import pack
from models.federation.layout import Flat
from models.federation.outcome import SUM_FILE, Outcome
from schemas.errors import QuorumMissed, SettingsInvalid
from streams.settings import load

SIZE = 256
NODES = range(1, 6)
DELTAS: dict[int, Flat] = {
    node: (np.random.default_rng(node).normal(size=SIZE) / (1.1 * np.sqrt(SIZE))).astype(np.float32)
    for node in NODES
}


def secure_round(
    folder: Path,
    vanishing: dict[int, str] | None = None,
    deltas: dict[int, Flat] = DELTAS,
    **changed: Any,
) -> tuple[Flat, Outcome, AppGrid]:
    """A round of five devices of which three are enough."""
    adapter = folder / "adapter.safetensors"
    save_file({"lora_A": np.zeros((4, SIZE // 4), np.float32)}, adapter)
    config = tomllib.loads((APP / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    config |= {"adapter": str(adapter), "result": str(folder), "timeout-s": 20.0, "grace-s": 0.1}
    config |= {"clients": 5, "clients-min": 3, "secure": True} | changed
    with trainers(folder, {node: pack(d, "none") for node, d in deltas.items()}) as paths:
        grid = AppGrid(paths, vanishing or {})
        outcome = do_round(grid, run_settings(config), Outcome("r"))
    return np.load(folder / SUM_FILE), outcome, grid


def the_sum(nodes: set[int]) -> Flat:
    total: Flat = np.sum([DELTAS[node] for node in nodes], axis=0)
    return total


def test_the_sum_is_right_and_no_delta_was_sent(tmp_path: Path) -> None:
    total, outcome, grid = secure_round(tmp_path)
    assert total == pytest.approx(the_sum(set(NODES)), abs=1e-4)
    assert outcome.digests.keys() == {"1", "2", "3", "4", "5"}
    assert outcome.failed == {}
    sent = b"".join(
        part
        for message in grid.seen
        for record in message.content.config_records.values()
        for value in record.values()
        for part in (value if isinstance(value, list) else [value])
        if isinstance(part, bytes)
    )
    # Neither as it is nor as the whole numbers that it becomes.
    for delta in DELTAS.values():
        assert delta[:8].tobytes() not in sent
    assert not any(
        record for message in grid.seen for record in message.content.array_records.values()
    )


@pytest.mark.parametrize("stage", Stage.all())
def test_devices_may_vanish_in_any_stage(tmp_path: Path, stage: str) -> None:
    total, outcome, _ = secure_round(tmp_path, {2: stage, 5: stage})
    # Who has sent the masked delta is in the sum, even if gone when the masks come off.
    lasted = set(NODES) if stage == Stage.UNMASK else {1, 3, 4}
    assert total == pytest.approx(the_sum(lasted), abs=1e-4)
    assert outcome.digests.keys() == {str(node) for node in lasted}


def test_devices_may_vanish_one_in_each_stage(tmp_path: Path) -> None:
    total, outcome, _ = secure_round(tmp_path, {1: Stage.SETUP, 2: Stage.COLLECT_MASKED_VECTORS})
    assert total == pytest.approx(the_sum({3, 4, 5}), abs=1e-4)
    assert outcome.failed.keys() == {"1", "2"}


@pytest.mark.parametrize("stage", Stage.all())
def test_when_too_few_last_nothing_is_unmasked(tmp_path: Path, stage: str) -> None:
    vanishing = dict.fromkeys((1, 2, 3), stage)
    with pytest.raises(QuorumMissed):
        secure_round(tmp_path, vanishing, **{"timeout-s": 1.0})
    assert not (tmp_path / SUM_FILE).exists()


def test_a_quorum_over_half_is_kept_too(tmp_path: Path) -> None:
    with pytest.raises(QuorumMissed, match="4 devices sent a good delta; the round needs 5"):
        secure_round(tmp_path, {1: Stage.SETUP}, **{"timeout-s": 1.0, "clients-min": 5})


def test_a_sum_that_honest_devices_cannot_make_is_refused(tmp_path: Path) -> None:
    # Each value within the range, and the whole much longer than allowed.
    deltas = DELTAS | {1: np.full(SIZE, 0.99, np.float32)}
    with pytest.raises(QuorumMissed, match="honest devices make 5 at most"):
        secure_round(tmp_path, deltas=deltas)


def test_settings_that_would_hide_nothing_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_FEDERATE_SECURE", "true")
    monkeypatch.setenv("HEADWATER_FEDERATE_COMPRESSION", "int8")
    with pytest.raises(SettingsInvalid, match="plain means without compression"):
        load(FederateSettings)
    monkeypatch.setenv("HEADWATER_FEDERATE_COMPRESSION", "none")
    monkeypatch.setenv("HEADWATER_FEDERATE_DEVICES_MIN", "2")
    with pytest.raises(SettingsInvalid, match="fewer than 3 devices hides little"):
        load(FederateSettings)
