"""The committed contracts: up to date, true to the events, and guarded by the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from event_strategies import events
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from infra.cli import cli
from schemas import codec, contracts
from schemas.errors import ContractBroken
from schemas.topics import TOPICS, Topic

by_topic = pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the contracts, to be edited."""
    contracts.export(tmp_path)
    return tmp_path


def edit(folder: Path, topic: str, key: str, *path: str, value: Any) -> None:
    """Set one value deep in a contract; `path` leads to its `key`."""
    file = folder / f"{topic}.schema.json"
    document = json.loads(file.read_text())
    place = document
    for step in path:
        place = place[step]
    place[key] = value
    file.write_text(json.dumps(document))


def check(folder: Path) -> tuple[int, str]:
    ran = CliRunner().invoke(cli, ["contracts", "check", "--against", str(folder)])
    return ran.exit_code, ran.output


def test_the_committed_contracts_are_up_to_date() -> None:
    assert contracts.unexported() == []


def test_the_committed_contracts_hold() -> None:
    assert check(contracts.FOLDER) == (0, f"{len(TOPICS)} contracts hold.\n")


@by_topic
def test_a_contract_is_valid_json_schema(topic: Topic) -> None:
    Draft202012Validator.check_schema(contracts.topic_schema(topic))


@by_topic
@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=30)
@given(data=st.data())
def test_every_event_that_we_write_fulfils_its_contract(topic: Topic, data: st.DataObject) -> None:
    event = data.draw(events(topic.event))
    contract = json.loads((contracts.FOLDER / f"{topic.name}.schema.json").read_text())
    Draft202012Validator(contract).validate(json.loads(codec.encode(event)))


@by_topic
def test_a_contract_refuses_what_is_no_event(topic: Topic) -> None:
    contract = Draft202012Validator(contracts.topic_schema(topic))
    assert not contract.is_valid([])
    assert not contract.is_valid({"prompt_id": 1, "topic": 1, "text": 1, "name": 1, "user": 1})


def test_a_tightened_limit_is_named(folder: Path) -> None:
    path = ("$defs", "Sampling", "properties", "max_tokens")
    edit(folder, "prompts", "maximum", *path, value=100_000)
    code, output = check(folder)
    assert code == 1
    assert "prompts.sampling.max_tokens: breaks an older writer" in output


def test_a_field_that_older_users_had_is_named(folder: Path) -> None:
    path = ("$defs", "Document", "properties")
    edit(folder, "documents", "language", *path, value={"type": "string"})
    code, output = check(folder)
    assert code == 1
    assert "documents.language: breaks an older writer: the field is gone" in output


def test_a_changed_key_is_named(folder: Path) -> None:
    edit(folder, "tokens", "x-headwater-key", value="generation_id")
    code, output = check(folder)
    assert code == 1
    assert "tokens: breaks an older reader: the key was generation_id, now prompt_id" in output


def test_a_topic_that_is_gone_is_named(folder: Path) -> None:
    (folder / "prompts.schema.json").rename(folder / "questions.schema.json")
    code, output = check(folder)
    assert code == 1
    assert "questions: breaks an older reader: the topic is gone" in output


def test_a_new_topic_breaks_nobody_but_must_be_exported(folder: Path) -> None:
    (folder / "prompts.schema.json").unlink()
    code, output = check(folder)
    assert code == 1
    assert "Compatible" in output
    assert contracts.unexported(folder) == ["prompts.schema.json"]


def test_a_folder_without_contracts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractBroken, match="No contracts"):
        contracts.breaks(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_contract_is_refused(folder: Path, text: str) -> None:
    (folder / "prompts.schema.json").write_text(text)
    with pytest.raises(ContractBroken, match=r"prompts\.schema\.json"):
        contracts.breaks(folder)


def test_exporting_does_not_write_over_what_would_break(folder: Path) -> None:
    edit(folder, "tokens", "x-headwater-key", value="generation_id")
    command = ["contracts", "export", "--folder", str(folder)]
    refused = CliRunner().invoke(cli, command)
    assert refused.exit_code == 1
    assert "tokens.schema.json" in contracts.unexported(folder)
    assert CliRunner().invoke(cli, [*command, "--force"]).exit_code == 0
    assert contracts.unexported(folder) == []


def test_exporting_removes_the_files_of_topics_now_gone(folder: Path) -> None:
    stale = folder / "gossip.schema.json"
    stale.write_text("{}")
    assert contracts.export(folder) == [stale]
    assert not stale.exists()


def test_asyncapi_names_every_topic_and_no_dangling_reference() -> None:
    document = contracts.asyncapi()
    assert set(document["channels"]) == {topic.name for topic in TOPICS}
    for reference in references(document):
        place = document
        for key in reference.removeprefix("#/").split("/"):
            place = place[key]


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for item in node for found in references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if "$ref" in node else []
    return own + [found for item in node.values() for found in references(item)]
