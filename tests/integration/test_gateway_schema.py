"""Schemathesis, as its own command: whatever the OpenAPI document allows, and much it forbids."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from gateways import Gateways

pytestmark = pytest.mark.integration

SUPPORT = Path(__file__).parents[1] / "support"
SHORT = ("--phases", "fuzzing", "--max-examples", "2", "--seed", "1")
# A schema cannot say that `stop` and JSON exclude each other, nor which schemas can be followed:
# such requests are refused, as they must be.
CONFIG = """
[[operations]]
include-name = "POST /v1/chat/completions"
checks.positive_data_acceptance.enabled = false
"""
LONG = ("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "150")


@pytest.mark.parametrize(
    "how", [pytest.param(SHORT, id="short"), pytest.param(LONG, id="long", marks=pytest.mark.long)]
)
@pytest.mark.timeout(900)
def test_schemathesis_finds_nothing(
    gateway: Gateways, tmp_path: Path, how: tuple[str, ...]
) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    # The first one loads the model, which takes longer than a request of Schemathesis may.
    first = {"model": "minilm", "input": "Warm up."}
    headers = {"Authorization": f"Bearer {gateway.keys['app']}"}
    httpx.post(f"{gateway.url()}/v1/embeddings", json=first, headers=headers, timeout=60.0)
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        *("run", f"{gateway.url()}/openapi.json", "--no-color"),
        *("--header", f"Authorization: Bearer {gateway.keys['app']}"),
        *("--suppress-health-check", "all", "--warnings", "off", *how),
    ]
    env = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
        "PYTHONPATH": f"{SUPPORT}:{SUPPORT.parents[1]}",
    }
    ran = subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=850, check=False
    )
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-2_000:]
