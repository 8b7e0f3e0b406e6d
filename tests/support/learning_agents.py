"""The agents that learn, as real processes on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from workers import agent_parts

from infra.part import Part
from infra.river import LEARNING
from streams.settings import KafkaSettings

QUESTIONS = [
    {"messages": [{"role": "user", "content": f"How deep is river {n}?"}], "answer": "Nine metres."}
    for n in range(4)
]


def learning_parts(
    kafka: KafkaSettings, model: Path | str, folder: Path, env: Mapping[str, str] | None = None
) -> list[Part]:
    """Workers of join and learn that keep all they know in `folder`; cohorts of three users."""
    gate = folder / "gate.jsonl"
    gate.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    settings = {
        "HEADWATER_JOIN_FOLDER": str(folder / "join"),
        "HEADWATER_JOIN_PSEUDONYM_KEY_FILE": str(folder / "pseudonym.key"),
        "HEADWATER_LEARN_FOLDER": str(folder / "learning"),
        "HEADWATER_LEARN_GATE_SET": str(gate),
        "HEADWATER_LEARN_COHORT_SIZE": "3",
        "HEADWATER_LEARN_DTYPE": "float32",
        "HEADWATER_LEARN_DEVICE": "cpu",
        **(env or {}),
    }
    parts = agent_parts(kafka, model, LEARNING)
    return [replace(part, env={**part.env, **settings}) for part in parts]
