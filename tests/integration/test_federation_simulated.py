"""Rounds over real devices and simulated ones, and very many simulated ones: real Flower, real ray.

Needs the extra `simulation`.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tiny_model import build_tiny_model

from infra.evaluation.federated_devices import RoundFigures, Setting, read_devices
from infra.evaluation.federated_fleet import on_fleet
from infra.evaluation.federation import Exchange, Trial
from infra.evaluation.federation_scale import ScaleFigures, many_devices
from models.engine.load import load

pytest.importorskip("ray")
pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(400)]

SETTING = Setting(devices=4, rounds=1, train=2, held_out=1, norm_max=0.5, epsilon=8.0)


def write_questions(path: Path) -> Path:
    """An article for each device, with three questions."""
    articles = [
        {
            "title": f"River {article}",
            "paragraphs": [
                {
                    "context": f"River {article} is {article} metres deep.",
                    "qas": [
                        {"question": f"Deep? {n}", "answers": [{"text": f"{article} metres"}]}
                        for n in range(3)
                    ],
                }
            ],
        }
        for article in range(SETTING.devices)
    ]
    path.write_text(json.dumps({"data": articles}))
    return path


def test_real_and_simulated_devices_add_up_to_what_one_process_computes(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model")
    devices = read_devices(write_questions(tmp_path / "questions.json"), SETTING)
    trial = Trial(load(str(model), tmp_path, "cpu", "auto"), devices, SETTING)
    flower: list[RoundFigures] = []
    here: list[RoundFigures] = []

    async def with_flower(exchange: Exchange) -> None:
        await trial.run("federated", flower.append, exchange)

    folder = tmp_path / "f"
    assert asyncio.run(on_fleet(trial, devices, SETTING, str(model), 2, folder, with_flower))
    asyncio.run(trial.run("federated", here.append))
    assert [one.number for one in flower] == [0, 1]
    # The order of examples differs, for a store names them anew; the work is the same.
    assert flower[1].loss == pytest.approx(here[1].loss, rel=0.01)
    assert flower[1].loss != flower[0].loss
    assert flower[1].device_bytes == here[1].device_bytes


def test_rounds_of_many_devices_cost_the_same_and_memory_stays(tmp_path: Path) -> None:
    found: list[ScaleFigures] = []
    assert asyncio.run(many_devices(tmp_path, 60, 4, found.append))
    assert [one.number for one in found] == [1, 2, 3, 4]
    # 1,792 float32 and the kind.
    assert {one.device_bytes for one in found} == {7169.0}
    assert found[3].processes_mib <= 1.1 * found[1].processes_mib
