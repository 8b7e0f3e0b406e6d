"""The server's side of a round, on Flower's own messages: quorum, poisoned devices, stragglers."""

from __future__ import annotations

import re
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from local_grid import Device, LocalGrid
from safetensors.numpy import save_file

from agents.federated.server_app import do_round
from agents.federated.task import RunSettings, run_settings
from agents.rounds.flower_round import ADAPTER_FILE, run_config
from agents.rounds.settings import FederateSettings
from agents.rounds.superlink import APP
from models.federation.deltas import pack
from models.federation.layout import Flat
from models.federation.outcome import SUM_FILE, Outcome
from models.federation.work import LocalWork
from models.learning.lora import LoraShape
from schemas.errors import QuorumMissed, SettingsInvalid

SIZE = 64
TRUTH = np.full(SIZE, 0.1, np.float32)


def a_device(delta: Flat) -> Device:
    return lambda work: pack(delta, msgspec.json.decode(work, type=LocalWork).compression)


def honest(seed: int) -> Device:
    """What everybody's training finds, and a little of its own."""
    noise = np.random.default_rng(seed).normal(scale=0.01, size=SIZE)
    return a_device((TRUTH + noise).astype(np.float32))


def broken(_work: bytes) -> bytes:
    raise RuntimeError("The device is on battery.")


def vanished(_work: bytes) -> None:
    return None


POISONED = {
    "sign-flipped": a_device(-TRUTH),
    "scaled": a_device(100 * TRUTH),
    "scaled within the norm": a_device((TRUTH / np.linalg.norm(TRUTH)).astype(np.float32)),
    "not a number": a_device(np.full(SIZE, np.nan, np.float32)),
}


@dataclass(frozen=True)
class Server:
    """A round's settings, from the app's own file, and where it leaves its sum."""

    folder: Path

    def settings(self, **changed: Any) -> RunSettings:
        adapter = self.folder / ADAPTER_FILE
        save_file({"lora_A": np.zeros((4, 16), np.float32)}, adapter)
        text = (APP / "pyproject.toml").read_text()
        config = tomllib.loads(text)["tool"]["flwr"]["app"]["config"]
        config |= {"adapter": str(adapter), "result": str(self.folder), "timeout-s": 5.0}
        config |= {"grace-s": 0.3, "clients": 4, "clients-min": 3}
        return run_settings(config | {name.replace("_", "-"): v for name, v in changed.items()})

    def round(self, devices: dict[int, Device], **changed: Any) -> tuple[Flat, Outcome]:
        """The sum of a round, and its outcome."""
        found = do_round(LocalGrid(devices), self.settings(**changed), Outcome("r"))
        return np.load(self.folder / SUM_FILE), found


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def test_deltas_add_up(server: Server) -> None:
    total, outcome = server.round({1: honest(1), 2: honest(2), 3: honest(3)})
    assert total == pytest.approx(3 * TRUTH, abs=0.06)
    assert outcome.digests.keys() == {"1", "2", "3"}
    # One byte says how it is packed.
    assert outcome.received_bytes == 3 * (4 * SIZE + 1)
    assert (server.folder / SUM_FILE).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("compression", ["int8", "topk"])
def test_compressed_deltas_add_up(server: Server, compression: str) -> None:
    devices = {node: a_device(np.eye(SIZE, dtype=np.float32)[0]) for node in (1, 2, 3)}
    total, outcome = server.round(devices, compression=compression)
    assert total[0] == pytest.approx(3.0, rel=0.01)
    assert outcome.received_bytes < 3 * 4 * SIZE


def test_without_a_quorum_there_is_no_sum_and_the_reasons_are_told(server: Server) -> None:
    devices = {1: honest(1), 2: honest(2), 3: broken, 4: vanished}
    with pytest.raises(QuorumMissed, match=r"2 devices sent a good delta; the round needs 3"):
        server.round(devices, timeout_s=1.0)
    assert not (server.folder / SUM_FILE).exists()


def test_too_few_devices_online_is_said_at_once_after_the_wait(server: Server) -> None:
    with pytest.raises(QuorumMissed, match="2 devices are online; the round needs 3"):
        server.round({1: honest(1), 2: honest(2)}, timeout_s=0.3)


def test_one_that_vanished_does_not_hold_up_the_others(server: Server) -> None:
    begun_s = time.monotonic()
    devices = {1: honest(1), 2: honest(2), 3: honest(3), 4: vanished}
    _, outcome = server.round(devices, timeout_s=60.0)
    assert time.monotonic() - begun_s < 3.0
    assert outcome.failed == {"4": "It did not answer in time."}


def test_a_round_ends_as_soon_as_its_quorum_cannot_be_reached(server: Server) -> None:
    begun_s = time.monotonic()
    with pytest.raises(QuorumMissed, match=r"1 devices sent a good delta.* on battery"):
        server.round({1: honest(1), 2: broken, 3: vanished, 4: broken}, timeout_s=60.0)
    with pytest.raises(QuorumMissed, match="1 devices are online; the round needs 3"):
        server.round({1: honest(1)}, nodes="1,2,3", timeout_s=60.0)
    assert time.monotonic() - begun_s < 3.0


def test_only_the_nodes_that_were_chosen_are_asked(server: Server) -> None:
    devices = {node: honest(node) for node in range(1, 7)}
    _, outcome = server.round(devices, nodes="2,4,6")
    assert outcome.digests.keys() == {"2", "4", "6"}


@pytest.mark.parametrize("kind", ["scaled", "not a number"])
def test_the_norm_bound_keeps_the_worst_out_of_the_mean(server: Server, kind: str) -> None:
    devices = {1: honest(1), 2: honest(2), 3: honest(3), 4: POISONED[kind]}
    total, outcome = server.round(devices)
    assert total == pytest.approx(3 * TRUTH, abs=0.06)
    assert outcome.failed.keys() == {"4"}


@pytest.mark.parametrize("aggregation", ["median", "trimmed-mean", "krum"])
@pytest.mark.parametrize("kind", POISONED)
def test_robust_rules_withstand_a_poisoned_device(
    server: Server, aggregation: str, kind: str
) -> None:
    devices = {node: honest(node) for node in range(1, 5)} | {5: POISONED[kind]}
    total, _ = server.round(devices, clients=5, aggregation=aggregation)
    # In place of the sum: five times the middle.
    assert np.abs(total / 5 - TRUTH).max() < 0.05


def test_krum_says_how_many_devices_it_needs(server: Server) -> None:
    devices = {node: honest(node) for node in (1, 2, 3)}
    with pytest.raises(SettingsInvalid, match="among 4 or more; there are 3"):
        server.round(devices, aggregation="krum")


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox"])
def test_what_the_operator_sets_is_what_devices_are_asked_for(
    server: Server, strategy: Literal["fedavg", "fedprox"]
) -> None:
    chosen = FederateSettings(
        strategy=strategy, proximal=0.3, device_noise=0.5, compression="int8", epochs=2, devices=9
    )
    config = run_config(chosen, LoraShape(rank=2), "r", server.folder, {1: "anna", 2: "ben"})
    asked = server.settings(**config)
    assert (asked.node_ids, asked.clients, asked.clients_min) == ({1, 2}, 9, 9)
    work = asked.work("layout")
    assert (work.rank, work.epochs, work.compression) == (2, 2, "int8")
    assert work.noise_multiplier == 0.5
    assert work.proximal == (0.3 if strategy == "fedprox" else 0.0)


def test_a_run_by_hand_is_told_what_it_lacks(server: Server) -> None:
    with pytest.raises(SettingsInvalid, match=re.escape("needs an adapter to start from")):
        server.settings(adapter="")
    with pytest.raises(SettingsInvalid, match="aggregation"):
        server.settings(aggregation="magic")
