"""docker-compose.yml and the Dockerfile, read as text: no container engine runs here."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic_settings import BaseSettings
from ruamel.yaml import YAML

from agents import settings as agent_settings
from agents.adapting.settings import AdaptSettings
from agents.gateway.settings import GatewaySettings
from agents.monitor.settings import MonitorSettings
from agents.rounds.settings import FederateSettings
from agents.studying.settings import StudySettings
from agents.tracking.settings import TrackSettings
from infra.paths import LocalSettings
from streams.settings import KafkaSettings
from streams.windows.settings import AnalyticsSettings

ROOT = Path(__file__).parents[2]
AGENTS = (
    "ingest",
    "retrieve",
    "generate",
    "join",
    "learn",
    "study",
    "adapt",
    "gateway",
    "track",
    "monitor",
)
# What Compose alone reads: options and ports of the profile `federation`.
FEDERATION_NAMES = {"HEADWATER_FEDERATION_HOST", "HEADWATER_FEDERATION_PORT"}
# Set for the image as a whole, and read by no settings class.
IMAGE_NAMES = {
    "HEADWATER_READY_FILE",
    "HEADWATER_IMAGE",
    "HEADWATER_WINDOWS_IMAGE",
    *FEDERATION_NAMES,
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """Give the file with its anchors and merges resolved, as an engine would see it."""
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    loaded: dict[str, Any] = YAML(typ="safe").load(text)
    return loaded


@pytest.fixture(scope="module")
def specification() -> dict[str, Any]:
    """Give the JSON Schema of the Compose specification, which a package ships."""
    # Found rather than imported: the package's command line wants another version of click.
    spec = find_spec("check_jsonschema")
    assert spec is not None
    assert spec.origin is not None
    schema = Path(spec.origin).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    loaded: dict[str, Any] = json.loads(schema.read_text("utf-8"))
    return loaded


@pytest.fixture(scope="module")
def known_settings() -> set[str]:
    """Give the environment name of every setting that our code reads."""
    classes: list[type[BaseSettings]] = [
        LocalSettings,
        KafkaSettings,
        GatewaySettings,
        AnalyticsSettings,
        StudySettings,
        TrackSettings,
        AdaptSettings,
        MonitorSettings,
        FederateSettings,
    ]
    for item in vars(agent_settings).values():
        if isinstance(item, type) and issubclass(item, BaseSettings):
            classes.append(item)
    return {
        f"{kind.model_config.get('env_prefix', '')}{field}".upper()
        for kind in classes
        for field in kind.model_fields
    }


def test_it_follows_the_compose_specification(
    compose: dict[str, Any], specification: dict[str, Any]
) -> None:
    jsonschema.validate(compose, specification)


def test_the_specification_refuses_what_is_wrong(
    compose: dict[str, Any], specification: dict[str, Any]
) -> None:
    wrong = compose | {"services": {"ingest": {"helthcheck": {}}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, specification)


def test_every_service_is_limited_and_every_lasting_one_is_watched(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        limits = service["deploy"]["resources"]["limits"]
        assert limits.keys() >= {"cpus", "memory"}, name
        assert service["restart"] in ("unless-stopped", "on-failure"), name
        assert "healthcheck" in service or service["restart"] == "on-failure", name


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_is_a_service_of_its_own_with_few_rights(
    compose: dict[str, Any], name: str
) -> None:
    service = compose["services"][name]
    assert service["command"] == ["agent", name]
    assert service["healthcheck"]["test"] == ["CMD", "python", "-m", "infra.health"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["user"].split(":")[0] != "0"


def test_federation_runs_where_it_is_asked_for(compose: dict[str, Any]) -> None:
    service = compose["services"]["federation"]
    assert service["profiles"] == ["federation"]
    assert service["command"][:3] == ["edge", "serve", "--agent"]
    # Its agent enters rounds into learn's ledger.
    assert any(volume.startswith("learn-data:") for volume in service["volumes"])


def test_every_volume_in_use_is_named_and_every_named_one_is_in_use(
    compose: dict[str, Any],
) -> None:
    services = compose["services"].values()
    mounted = {
        volume.split(":")[0] for service in services for volume in service.get("volumes", ())
    }
    # Those that begin with a dot are folders of the checkout.
    used = {name for name in mounted if not name.startswith("./")}
    assert used == compose["volumes"].keys()
    assert all((ROOT / name).is_dir() for name in mounted - used)


def test_every_environment_name_is_a_setting(known_settings: set[str]) -> None:
    files_read = ("docker-compose.yml", "infra/images/Dockerfile")
    text = "".join((ROOT / name).read_text("utf-8") for name in files_read)
    used = set(re.findall(r"HEADWATER_[A-Z_]+", text))
    assert used - known_settings == IMAGE_NAMES


def test_the_image_copies_only_what_exists_and_is_sent_to_the_builder() -> None:
    dockerfile = (ROOT / "infra/images/Dockerfile").read_text("utf-8")
    sources = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
    copied = {name for line in sources for name in line.split()}
    ignore_lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert copied == {line[1:] for line in ignore_lines if line.startswith("!")}
    assert all((ROOT / name).exists() for name in copied)


def test_what_the_image_runs_matches_the_service(compose: dict[str, Any]) -> None:
    dockerfile = (ROOT / "infra/images/Dockerfile").read_text("utf-8")
    target = compose["services"]["ingest"]["build"]["target"]
    assert re.search(rf"^FROM \S+ AS {target}$", dockerfile, re.MULTILINE)
    assert f"USER {compose['services']['ingest']['user']}" in dockerfile


def test_flink_is_of_one_version_and_all_its_parts_see_the_checkpoints(
    compose: dict[str, Any],
) -> None:
    parts = [compose["services"][name] for name in ("jobmanager", "taskmanager", "windows")]
    assert all(part["image"] == parts[0]["image"] for part in parts)
    assert all(part["build"]["target"] == "windows" for part in parts)
    assert all("checkpoints:/checkpoints" in part["volumes"] for part in parts)
    assert parts[2]["environment"]["HEADWATER_ANALYTICS_CHECKPOINTS"] == "/checkpoints"


@pytest.fixture(scope="module")
def kubernetes() -> dict[str, dict[str, Any]]:
    """Give the objects of the windows on Kubernetes, by kind."""
    text = (ROOT / "infra/kubernetes/windows.yaml").read_text("utf-8")
    return {found["kind"]: found for found in YAML(typ="safe").load_all(text)}


def test_on_kubernetes_the_windows_have_the_same_flink(
    kubernetes: dict[str, dict[str, Any]],
) -> None:
    flink = kubernetes["FlinkDeployment"]["spec"]
    pinned = re.search(r"^apache-flink==(\S+)", (ROOT / "requirements/flink.in").read_text(), re.M)
    assert pinned is not None
    assert flink["image"].startswith(f"flink:{pinned[1]}-")
    major, minor, _ = flink["image"].removeprefix("flink:").split(".", 2)
    assert flink["flinkVersion"] == f"v{major}_{minor}"
    assert "job" not in flink  # a session: whoever submits has the files


def test_on_kubernetes_the_submitter_finds_the_cluster_and_the_checkpoints(
    kubernetes: dict[str, dict[str, Any]], known_settings: set[str]
) -> None:
    (container,) = kubernetes["Deployment"]["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert env.keys() <= known_settings
    name = kubernetes["FlinkDeployment"]["metadata"]["name"]
    assert env["HEADWATER_ANALYTICS_CLUSTER"] == f"{name}-rest:8081"
    claim = kubernetes["PersistentVolumeClaim"]["metadata"]["name"]
    for template in (
        kubernetes["Deployment"]["spec"]["template"],
        kubernetes["FlinkDeployment"]["spec"]["podTemplate"],
    ):
        volume = template["spec"]["volumes"][0]
        assert volume["persistentVolumeClaim"]["claimName"] == claim
        mount = template["spec"]["containers"][0]["volumeMounts"][0]
        assert mount["mountPath"] == env["HEADWATER_ANALYTICS_CHECKPOINTS"]
