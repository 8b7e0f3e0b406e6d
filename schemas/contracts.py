"""The exported contracts: a JSON Schema for each topic and one AsyncAPI 3 document.

They are committed under `schemas/contracts/`. `breaks` compares the structs with them and names the
fields that break an older reader or writer; `unexported` names files that are merely out of date.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import msgspec

from schemas.compatibility import Break, Schema, breaking_changes
from schemas.errors import ContractBroken
from schemas.headers import CONTENT_TYPE, event_type
from schemas.topics import TOPICS, Topic

FOLDER: Final = Path(__file__).parent / "contracts"
ASYNCAPI: Final = "asyncapi.json"
_KEY: Final = "x-headwater-key"
_CE_HEADERS: Final = ("ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time")


def topic_schema(topic: Topic) -> Schema:
    """JSON Schema 2020-12 of a topic's values."""
    schema = msgspec.json.schema(topic.event)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": topic.name,
        "description": topic.description,
        _KEY: topic.key,
        **schema,
    }


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document of the river, with Kafka bindings 0.5.0."""
    _, components = msgspec.json.schema_components(
        [topic.event for topic in TOPICS], ref_template="#/components/schemas/{name}"
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Headwater",
            "version": "1.0.0",
            "description": "Topics carry a configurable prefix, by default `headwater.`.",
        },
        "defaultContentType": CONTENT_TYPE.decode(),
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": {
            f"{action}-{topic.name}": {
                "action": action,
                "channel": {"$ref": f"#/channels/{topic.name}"},
            }
            for topic in TOPICS
            for action in ("send", "receive")
        },
        "components": {
            "messages": {topic.event.__name__: _message(topic) for topic in TOPICS},
            "schemas": {**components, "Headers": _headers_schema()},
        },
    }


def export(folder: Path = FOLDER) -> list[Path]:
    """Write every contract file, remove those of topics now gone; returns the files changed."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = _files()
    changed = []
    for stale in set(folder.glob("*.json")) - {folder / name for name in wanted}:
        stale.unlink()
        changed.append(stale)
    for name, text in wanted.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            changed.append(path)
    return changed


def breaks(folder: Path = FOLDER) -> list[Break]:
    """What the structs would break for users of the contracts in `folder`.

    Raises ContractBroken when the folder holds no contracts to compare with.
    """
    files = sorted(folder.glob("*.schema.json"))
    if not files:
        raise ContractBroken(
            f"No contracts in {folder}.", "Write them with `headwater contracts export`."
        )
    found: list[Break] = []
    current = {topic.name: topic_schema(topic) for topic in TOPICS}
    for path in files:
        name, old = path.name.removesuffix(".schema.json"), _read(path)
        if name not in current:
            found.append(Break(name, "reader", "the topic is gone"))
            continue
        new = current[name]
        if old.get(_KEY) != new[_KEY]:
            found.append(Break(name, "reader", f"the key was {old.get(_KEY)}, now {new[_KEY]}"))
        found += breaking_changes(name, old, new)
    return found


def unexported(folder: Path = FOLDER) -> list[str]:
    """Names of contract files that differ from the structs."""
    return [
        name
        for name, text in _files().items()
        if not (folder / name).exists() or (folder / name).read_text() != text
    ]


def _files() -> dict[str, str]:
    files = {f"{topic.name}.schema.json": _dump(topic_schema(topic)) for topic in TOPICS}
    return {**files, ASYNCAPI: _dump(asyncapi())}


def _dump(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _read(path: Path) -> Schema:
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ContractBroken(
            f"{path} cannot be read: {error}.", "Restore it from version control."
        ) from error
    if not isinstance(document, dict):
        raise ContractBroken(f"{path} holds no JSON object.", "Restore it from version control.")
    return document


def _channel(topic: Topic) -> dict[str, Any]:
    name = topic.event.__name__
    config: dict[str, Any] = {"max.message.bytes": topic.batch_bytes_max}
    if topic.retention_ms is None:
        config["cleanup.policy"] = ["compact"]
    else:
        config |= {"cleanup.policy": ["delete"], "retention.ms": topic.retention_ms}
    return {
        "address": f"headwater.{topic.name}",
        "description": topic.description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "bindings": {
            "kafka": {
                "bindingVersion": "0.5.0",
                "partitions": topic.partitions,
                "topicConfiguration": config,
            }
        },
    }


def _message(topic: Topic) -> dict[str, Any]:
    return {
        "name": event_type(topic),
        "title": topic.event.__name__,
        "contentType": CONTENT_TYPE.decode(),
        "headers": {"$ref": "#/components/schemas/Headers"},
        "payload": {"$ref": f"#/components/schemas/{topic.event.__name__}"},
        "bindings": {
            "kafka": {
                "bindingVersion": "0.5.0",
                "key": {"type": "string", "description": topic.key},
            }
        },
    }


def _headers_schema() -> Schema:
    names = (*_CE_HEADERS, "content-type", "traceparent")
    return {
        "type": "object",
        "description": "CloudEvents 1.0 (Kafka binding) and W3C Trace Context; all optional.",
        "properties": {name: {"type": "string"} for name in names},
    }
