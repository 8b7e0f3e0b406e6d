"""The evaluation of federation on a tiny model: its arms differ in what they should."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tiny_model import build_tiny_model

from infra.evaluation.federated_devices import RoundFigures, Setting, read_devices
from infra.evaluation.federation import ARMS, Trial
from infra.evaluation.text_scores import word_f1
from models.engine.load import load
from schemas.errors import DataInvalid

SETTING = Setting(
    devices=3, rounds=2, train=2, held_out=1, norm_max=0.5, epsilon=8.0, compression="int8"
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "squad.json"
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
        for article in range(3)
    ]
    path.write_text(json.dumps({"data": articles}))
    return path


@pytest.fixture(scope="module")
def figures(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[RoundFigures]:
    folder = build_tiny_model(tmp_path_factory.mktemp("model"))
    trial = Trial(
        load(str(folder), folder, "cpu", "float32"), read_devices(dataset, SETTING), SETTING
    )
    found: list[RoundFigures] = []
    for arm in ARMS:
        asyncio.run(trial.run(arm, found.append))
    return found


def test_each_device_has_questions_of_its_own_article(dataset: Path) -> None:
    devices = read_devices(dataset, SETTING)
    assert [len(device.train) for device in devices] == [2, 2, 2]
    assert {device.train[0].correction for device in devices} == {
        "0 metres",
        "1 metres",
        "2 metres",
    }
    with pytest.raises(DataInvalid, match="make 0 for each of 10 devices"):
        read_devices(dataset, Setting(10, 1, 1, 1, 1.0, 8.0))


def test_all_arms_begin_alike_and_go_their_own_ways(figures: list[RoundFigures]) -> None:
    assert len({one.loss for one in figures if one.number == 0}) == 1
    assert len({one.loss for one in figures if one.number == 2}) == len(ARMS)


def test_bytes_leave_devices_only_where_they_are_federated(figures: list[RoundFigures]) -> None:
    sizes = {one.arm: one.device_bytes for one in figures if one.number == 1}
    assert sizes["local"] == sizes["centralised"] == 0.0
    # 8 bits of 1,792 parameters, and a scale for each block of 256.
    assert sizes["federated"] == 1 + 1792 + 4 * 7


def test_f1_counts_words_without_articles_and_punctuation() -> None:
    assert word_f1("The river, 9 metres!", "9 metres") == pytest.approx(0.8)
    assert word_f1("the sea", "9 metres") == 0.0
    assert word_f1("", "") == 0.0
