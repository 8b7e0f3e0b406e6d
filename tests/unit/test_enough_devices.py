"""Waiting for devices before a round: for those that are offline, not for those that cannot be."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import pytest

from agents.rounds.flower_round import enough_devices
from agents.rounds.settings import FederateSettings
from agents.rounds.superlink import Node, SuperLink
from schemas.errors import QuorumMissed


class Devices:
    """Says of each device at which look it is online for the first time; 0 is from the start."""

    def __init__(self, *online_from: int) -> None:
        self._online_from = online_from
        self._looks = 0

    def nodes(self) -> list[Node]:
        self._looks += 1
        return [
            Node(number, f"owner{number}/phone", "", self._looks > first)
            for number, first in enumerate(self._online_from)
        ]


def waited(devices: Devices, wait_s: float) -> dict[int, str]:
    """Whom a round of two asks."""
    settings = FederateSettings(devices=2, wait_s=wait_s)

    def choose(nodes: list[Node]) -> dict[int, str]:
        return {node.node_id: node.owner for node in nodes if node.online}

    return asyncio.run(enough_devices(cast(SuperLink, devices), choose, settings))


def test_a_device_that_was_offline_joins_the_next_round() -> None:
    assert waited(Devices(0, 2), 30.0) == {0: "owner0", 1: "owner1"}


def test_after_the_time_it_says_how_many_were_there() -> None:
    with pytest.raises(QuorumMissed, match=r"1 devices that may take part were online in 0\.1 s"):
        waited(Devices(0, 1_000), 0.1)


def test_where_too_few_are_admitted_nobody_is_waited_for() -> None:
    begun_s = time.monotonic()
    with pytest.raises(QuorumMissed, match=r"Devices of 1 owners are admitted .* needs 2"):
        waited(Devices(1_000), 30.0)
    assert time.monotonic() - begun_s < 1.0
