"""What `import headwater` gives, and what it does not drag in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import headwater

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "faust", "typer", "rich", "numpy", "models", "agents", "infra"}


def test_the_exported_names_are_these() -> None:
    assert headwater.__all__ == [
        "Answer",
        "Client",
        "Delta",
        "Document",
        "Feedback",
        "Generation",
        "HeadwaterError",
        "KafkaSettings",
        "Message",
        "Prompt",
        "Retrieval",
        "Sampling",
        "Subscription",
        "SyncClient",
        "TokenChunk",
        "main",
    ]
    assert all(getattr(headwater, name).__doc__ for name in headwater.__all__)


def test_importing_it_imports_nothing_heavy() -> None:
    script = "import headwater, json, sys; print(json.dumps([*sys.modules]))"
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    imported = {name.split(".")[0] for name in json.loads(ran.stdout)}
    assert "confluent_kafka" in imported
    assert imported & HEAVY == set()


def test_the_light_sdk_says_where_the_command_line_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "infra.cli", None)
    with pytest.raises(SystemExit, match=r"not installed here.*checkout"):
        headwater.main()
