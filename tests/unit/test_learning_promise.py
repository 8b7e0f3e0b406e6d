"""What an adapter began with holds on whatever machine it goes on."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
import torch
from learning_agents import QUESTIONS
from tiny_model import build_tiny_model

import models.precision
from agents.learning.adapter_learning import Learning
from agents.settings import LearnSettings
from schemas.errors import LedgerBroken


@pytest.fixture
def settings(tmp_path: Path) -> LearnSettings:
    gate = tmp_path / "gate.jsonl"
    gate.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    return LearnSettings(folder=tmp_path / "learning", gate_set=gate, device="cpu", cohort_size=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_tiny_model(tmp_path_factory.mktemp("model")))


def on_a_machine_that_favours(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.precision, "best_dtype", lambda _device: dtype)


def format_of(settings: LearnSettings, model: str) -> object:
    with closing(Learning(settings, model, lambda: None)) as learning:
        return learning.opening.settings.get("dtype")


def test_an_adapter_goes_on_in_the_format_that_it_began_with(
    settings: LearnSettings, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_machine_that_favours(torch.bfloat16, monkeypatch)
    assert format_of(settings, model) == "bfloat16"
    on_a_machine_that_favours(torch.float32, monkeypatch)
    assert format_of(settings, model) == "bfloat16"
    with pytest.raises(LedgerBroken, match="dtype was bfloat16 and is float32"):
        format_of(settings.model_copy(update={"dtype": "float32"}), model)
