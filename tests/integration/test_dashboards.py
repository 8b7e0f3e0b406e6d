"""What dashboards and alerts ask for exists, and a real Prometheus can read it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from monitors import monitoring, page, publish_statistics
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from windows_by_hand import one_of_each

from agents.gateway.metrics import GatewayMetrics
from agents.learning.controls import control_record
from agents.learning.model_change import change_record
from agents.rounds.asked_round import asked_record, event_record
from agents.runtime.metrics import UpdateMetrics
from infra.ports import free_ports
from models.engine.options import TorchEngineOptions
from models.engine.torch_engine import TorchEngine
from schemas.clock import now_ms
from schemas.events import FederatedRound, ModelUpdate, PrivacySpent
from schemas.topics import CONTROLS
from streams.follower import consumer_config
from streams.producer import Producer
from streams.settings import KafkaSettings

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]

INFRA = Path(__file__).parents[2] / "infra"
# Prometheus' own.
ITS_OWN = {"up"}


def queries() -> dict[str, str]:
    """Every expression of dashboards and rules, by where it stands."""
    found = {}
    for path in sorted((INFRA / "grafana" / "dashboards").glob("*.json")):
        board = json.loads(path.read_text("utf-8"))
        for panel in board["panels"]:
            for target in panel["targets"]:
                found[f"{path.name}: {panel['title']} {target['refId']}"] = target["expr"]
        for note in board["annotations"]["list"]:
            found[f"{path.name}: {note['name']}"] = note["expr"]
    rules = (INFRA / "prometheus" / "rules.yml").read_text("utf-8")
    for number, expression in enumerate(re.findall(r"expr: (?:>-)?((?:.|\n {10})+)", rules)):
        found[f"rule {number}"] = expression
    return found


def samples(exposition: str) -> dict[str, set[str]]:
    """The labels of each series name, as a page has them."""
    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }


async def tell_everything(kafka: KafkaSettings) -> None:
    """A record of every kind that a monitor reads."""
    at_ms = now_ms()
    privacy = PrivacySpent("gaussian", epsilon_total=1.0)
    update = ModelUpdate("default", "v1", "online", at_ms, "base", privacy=privacy)
    ended = FederatedRound("r", "finished", "default", at_ms, None, 3, 0, 1_000, 2.0)
    producer = Producer(kafka)
    try:
        for record in (
            change_record(update, "update", "/test"),
            control_record("default", "paused", "a test", "control", "/test"),
            asked_record("default", "r"),
            event_record(ended),
        ):
            await producer.send(record)
        await publish_statistics(producer, one_of_each("v1", at_ms))
    finally:
        await producer.close()


def fall_behind(kafka: KafkaSettings) -> None:
    """A group without members that has not read the one record of `controls`."""
    group = confluent_kafka.Consumer(consumer_config(kafka, kafka.group_name("archive")))
    place = confluent_kafka.TopicPartition(kafka.topic_name(CONTROLS), 0, 0)
    group.commit(offsets=[place], asynchronous=False)
    group.close()


async def engine_page(model: Path) -> str:
    """What a generate worker's page has."""
    engine = TorchEngine(TorchEngineOptions(model.parent / "cache", str(model), slots=2))
    await engine.start()
    try:
        metrics = UpdateMetrics()
        return exposed(engine.metrics) + exposed(metrics.registry)
    finally:
        await engine.close()


def gateway_page() -> str:
    metrics = GatewayMetrics()
    metrics.requests.labels("/v1/models", "200").inc()
    metrics.seconds.labels("/v1/models").observe(0.01)
    return exposed(metrics.registry)


def exposed(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


async def shown(address: str, *names: str) -> str:
    async with asyncio.timeout(20):
        while True:
            text = await page(address)
            if all(name in text for name in names):
                return text
            await asyncio.sleep(0.1)


async def test_every_figure_that_is_asked_for_exists(
    kafka: KafkaSettings, tiny_model: Path
) -> None:
    await tell_everything(kafka)
    await asyncio.to_thread(fall_behind, kafka)
    async with monitoring(kafka, lag_interval_s=0.2) as address:
        text = await shown(
            address,
            "headwater:federated_round_seconds",
            'headwater:consumer_lag{group="archive",topic="controls"} 1.0',
            'headwater:consumer_members{group="archive"} 0.0',
        )
        known = samples(text + await engine_page(tiny_model) + gateway_page())
        for place, expression in queries().items():
            names = set(re.findall(r"headwater:\w+", expression)) or ITS_OWN
            assert names - ITS_OWN <= known.keys(), place
            for name, chosen in re.findall(r"(headwater:\w+)\{(.+?)\}", expression):
                assert set(re.findall(r"(\w+)!?=~?\"", chosen)) <= known[name], place


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="there is no Prometheus")
async def test_prometheus_reads_a_running_monitor_and_rings(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    await tell_everything(kafka)
    async with monitoring(kafka) as address:
        with prometheus(tmp_path, address) as port:
            try:
                await asyncio.to_thread(check_prometheus, port)
            except TimeoutError as error:
                log = (tmp_path / "prometheus.log").read_text()
                raise AssertionError(f"{error}\n{log[-2_000:]}") from error


@contextmanager
def prometheus(folder: Path, address: str) -> Iterator[int]:
    """The port of the real one, with the rules of this checkout."""
    (port,) = free_ports(1)
    target = urllib.parse.urlparse(address).netloc
    config = folder / "prometheus.yml"
    config.write_text(
        f"""
global: {{ scrape_interval: 1s, evaluation_interval: 1s }}
rule_files: ["{INFRA / "prometheus" / "rules.yml"}"]
scrape_configs:
  - job_name: monitor
    static_configs: [{{ targets: ["{target}"] }}]
"""
    )
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stderr=log,
        )
    try:
        yield port
    finally:
        process.terminate()
        process.wait(20)


def check_prometheus(port: int) -> None:
    """It has the figures, and the alerts that follow from them."""
    reward = until(port, "query?query=headwater:window_reward_mean", lambda d: d["result"])
    assert reward["result"][0]["metric"]["model_version"] == "v1"
    assert reward["result"][0]["metric"]["job"] == "monitor"
    assert float(reward["result"][0]["value"][1]) == 0.6
    wanted = {"LearningPaused", "PrivacyBudgetSpent", "PrivacyBudgetLow"}
    until(port, "alerts", lambda d: wanted <= {a["labels"]["alertname"] for a in d["alerts"]})


def until(port: int, path: str, enough: Any) -> Any:
    # It looks for targets every 5 s.
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        try:
            url = f"http://127.0.0.1:{port}/api/v1/{path}"
            with urllib.request.urlopen(url, timeout=5) as answer:
                data = json.load(answer)["data"]
            if enough(data):
                return data
        except OSError:  # It does not listen yet.
            pass
        time.sleep(0.2)
    raise TimeoutError(f"{path} never had what was waited for")
