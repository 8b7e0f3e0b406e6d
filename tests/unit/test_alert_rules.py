"""Alert rules: their grammar, what they ring for, and that each says what to do."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra" / "prometheus"
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool comes with Debian's package prometheus"
)


def read(name: str) -> Any:
    return YAML(typ="safe").load((FOLDER / name).read_text("utf-8"))


@pytest.fixture(scope="module")
def rules() -> list[dict[str, Any]]:
    return [rule for group in read("rules.yml")["groups"] for rule in group["rules"]]


@needs_promtool
@pytest.mark.parametrize(
    "arguments", [("check", "rules", "rules.yml"), ("test", "rules", "rules_test.yml")]
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_scrape_configuration_is_one() -> None:
    done = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"], cwd=FOLDER, capture_output=True
    )
    assert done.returncode == 0, done.stdout


def test_every_alert_says_what_to_do(rules: list[dict[str, Any]]) -> None:
    text = (ROOT / "docs" / "OPERATING.md").read_text("utf-8")
    headings = re.findall(r"^### (\w+)$", text, re.MULTILINE)
    assert headings == [rule["alert"] for rule in rules]
    for rule in rules:
        assert rule["annotations"]["runbook"] == f"docs/OPERATING.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_compose_has_what_is_scraped() -> None:
    compose = YAML(typ="safe").load((ROOT / "docker-compose.yml").read_text("utf-8"))
    services, environment = compose["services"], "environment"
    assert {job["job_name"] for job in read("prometheus.yml")["scrape_configs"]} <= set(services)
    assert services["generate"][environment]["HEADWATER_GENERATE_METRICS_PORT"] == 9109
    for name in ("generate", "monitor"):
        host = f"HEADWATER_{name.upper()}_METRICS_HOST"
        assert services[name][environment][host] == "0.0.0.0"
