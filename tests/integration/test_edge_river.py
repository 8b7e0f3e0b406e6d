"""Federated rounds of a whole river, as an operator and owners of devices type it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import confluent_kafka
import httpx
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from learning_agents import QUESTIONS
from terminal import Terminal, until

from infra.ports import free_ports
from schemas.events import FederatedRound
from schemas.topics import FEDERATED_ROUNDS
from streams.settings import KafkaSettings
from streams.subscription import Subscription

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(280)]


def a_terminal(folder: Path, model: Path, **env: str) -> Terminal:
    """Of somebody whose river teaches the tiny model, on ports of its own."""
    gate = folder / "gate.jsonl"
    gate.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    (superlink_port,) = free_ports(1)
    own = {
        "HEADWATER_DATA_DIR": str(folder / "data"),
        "HEADWATER_GENERATE_MODEL": str(model),
        "HEADWATER_LEARN_GATE_SET": str(gate),
        # Whatever the noise does to a tiny model, each version goes live.
        "HEADWATER_LEARN_GATE_TOLERANCE": "100",
        "HEADWATER_LEARN_DTYPE": "float32",
        "HEADWATER_LEARN_DEVICE": "cpu",
        "HEADWATER_EDGE_DTYPE": "float32",
        "HEADWATER_EDGE_DEVICE": "cpu",
        "HEADWATER_FEDERATE_SUPERLINK": f"127.0.0.1:{superlink_port}",
        "HEADWATER_FEDERATE_DEVICES": "2",
        "HEADWATER_FEDERATE_DEVICES_MIN": "1",
    }
    return Terminal(folder, os.environ | own | env)


def join_words(terminal: Terminal, owner: str, port: int, model: Path) -> list[str]:
    """Makes a device's key and has it admitted; the words that let it take part."""
    data = ["--data", str(terminal.folder / owner)]
    public = terminal.headwater("edge", "key", *data).strip()
    terminal.headwater("edge", "admit", public, "--owner", owner)
    ca = terminal.folder / "data" / "superlink" / "gate" / "ca.pem"
    reach = ["--superlink", f"127.0.0.1:{port}", "--ca", str(ca), "--model", str(model)]
    return ["edge", "join", *reach, *data]


async def until_finished(kafka: KafkaSettings) -> list[FederatedRound]:
    """All events of rounds, once one has finished."""
    found: list[FederatedRound] = []
    rounds = Subscription(kafka, FEDERATED_ROUNDS, since="earliest")
    async with asyncio.timeout(90), rounds as events:
        async for event in events:
            assert isinstance(event, FederatedRound)
            found.append(event)
            if event.status == "finished":
                break
    return found


def make_topic(kafka: KafkaSettings, topic: str) -> None:
    admin = AdminClient(kafka.client_config())
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(20)


def publish(kafka: KafkaSettings, topic: str, value: bytes) -> None:
    producer = confluent_kafka.Producer(kafka.client_config())
    producer.produce(topic, value)
    producer.flush(10)


def test_a_device_learns_from_its_owners_topic_in_rounds_by_schedule(
    kafka: KafkaSettings, tiny_model: Path, tmp_path: Path
) -> None:
    terminal = a_terminal(
        tmp_path,
        tiny_model,
        HEADWATER_KAFKA_BOOTSTRAP=kafka.bootstrap,
        HEADWATER_KAFKA_TOPIC_PREFIX=kafka.topic_prefix,
        HEADWATER_LEARN_FOLDER=str(tmp_path / "learning"),
        HEADWATER_FEDERATE_EVERY_S="2",
    )
    (port,) = free_ports(1)
    own = f"{kafka.topic_prefix}of-anna"
    make_topic(kafka, own)
    with terminal.beside("serve", "edge", "serve", "--agent", "--port", str(port)) as served:
        until(lambda: "headwater edge join" in served.read_text())
        anna = [*join_words(terminal, "anna", port, tiny_model), "--topic", own]
        with terminal.beside("anna", *anna) as joined:
            publish(kafka, own, b'{"prompt": "Wide?", "answer": "Forty metres."}')
            until(lambda: "1 examples now" in joined.read_text())
            events = asyncio.run(until_finished(kafka))
            until(lambda: "trained on 1 examples" in joined.read_text())
    asked = [event.reason for event in events if event.status == "asked"]
    assert set(asked) == {"asked by the schedule"}
    assert events[-1].clients == 1


def test_a_whole_river_lets_devices_teach(tiny_model: Path, tmp_path: Path) -> None:
    ports = free_ports(5)
    names = ("KAFKA_PORT", "KAFKA_CONTROLLER_PORT", "GATEWAY_PORT", "MONITOR_METRICS_PORT")
    own = {f"HEADWATER_{name}": f"{port}" for name, port in zip(names, ports[:4], strict=True)}
    bootstrap = f"127.0.0.1:{ports[0]}"
    terminal = a_terminal(
        tmp_path,
        tiny_model,
        **own,
        HEADWATER_KAFKA_BOOTSTRAP=bootstrap,
        HEADWATER_ANALYTICS_ENABLED="false",
        HEADWATER_TRACK_MLFLOW="false",
    )
    port = ports[4]
    up = ["up", "--federation", "--federation-port", str(port)]
    with terminal.beside("up", *up) as printed:
        ready = ("headwater edge join", "fleet-gate ready", "federate ready")
        until(lambda: all(word in printed.read_text() for word in ready), 180)
        page = f"http://127.0.0.1:{ports[2]}/ui/"
        assert f"The page is at {page}" in printed.read_text()
        assert httpx.get(page).status_code == 200
        words = join_words(terminal, "anna", port, tiny_model)
        hers = ["--data", str(tmp_path / "anna")]
        terminal.headwater("edge", "add-example", "Deep?", "Nine metres.", *hers)
        with terminal.beside("anna", *words):
            until(lambda: terminal.online() == ["anna/device"])
            ended = terminal.headwater("edge", "round", "--wait", "--json").splitlines()[-1]
        assert json.loads(ended)["model_version"] == "default.federated-1"
        # What generate has loaded answers the next prompt.
        answer = json.loads(terminal.headwater("ask", "Deep?", "--json").splitlines()[-1])
        assert "default.federated-1" in json.dumps(answer)
