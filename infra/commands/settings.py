"""The README's settings table, written from the classes that read the environment.

`python -m infra.commands.settings` writes it anew after a change of a setting.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from agents.adapting.settings import AdaptSettings
from agents.edge.settings import EdgeSettings
from agents.gateway.settings import GatewaySettings
from agents.monitor.settings import MonitorSettings
from agents.rounds.settings import FederateSettings
from agents.settings import (
    EmbedderSettings,
    GenerateSettings,
    IngestSettings,
    JoinSettings,
    LearnSettings,
    RemoteEngineSettings,
    RetrieveSettings,
    WorkerSettings,
)
from agents.studying.settings import StudySettings
from agents.tracking.settings import TrackSettings
from infra.paths import LocalSettings
from models.cache import user_cache_dir
from streams.settings import KafkaSettings
from streams.windows.settings import AnalyticsSettings

README: Final = Path(__file__).parents[2] / "README.md"
BEGIN: Final = "<!-- settings: python -m infra.commands.settings -->\n"
END: Final = "<!-- end of settings -->\n"

# In the order of the table, under these headings.
GROUPS: Final[tuple[tuple[str, type[BaseSettings]], ...]] = (
    ("Every client of Kafka", KafkaSettings),
    ("The local runtime", LocalSettings),
    ("Every agent", WorkerSettings),
    ("The embedder of ingest and retrieve", EmbedderSettings),
    ("ingest", IngestSettings),
    ("retrieve", RetrieveSettings),
    ("generate", GenerateSettings),
    ("generate, with a remote engine", RemoteEngineSettings),
    ("join", JoinSettings),
    ("learn", LearnSettings),
    ("study", StudySettings),
    ("adapt", AdaptSettings),
    ("federate", FederateSettings),
    ("track", TrackSettings),
    ("A device (`headwater edge join`)", EdgeSettings),
    ("gateway", GatewaySettings),
    ("monitor", MonitorSettings),
    ("The windowed statistics", AnalyticsSettings),
)


def settings_table() -> str:
    """All settings in Markdown; one that two classes read stands where it comes first."""
    lines = ["| environment name | default | meaning |", "|---|---|---|"]
    seen: set[str] = set()
    for heading, kind in GROUPS:
        lines.append(f"| **{heading}** | | |")
        for field_name, field in kind.model_fields.items():
            name = environment_name(kind, field_name, field)
            if name not in seen:
                seen.add(name)
                lines.append(f"| `{name}` | {_default(field)} | {_meaning(field)} |")
    return "\n".join(lines) + "\n"


def setting_names() -> set[str]:
    """The environment variables that set anything."""
    return {
        environment_name(kind, field_name, field)
        for _, kind in GROUPS
        for field_name, field in kind.model_fields.items()
    }


def environment_name(kind: type[BaseSettings], field_name: str, field: FieldInfo) -> str:
    """The variable that sets a field; an alias stands for itself, without the prefix."""
    alias = field.validation_alias
    if isinstance(alias, str):
        return alias
    return f"{kind.model_config['env_prefix']}{field_name}".upper()


def with_table(text: str) -> str:
    """A README with the present table between its markers; raises ValueError without them."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}{settings_table()}{END}{after}"


def _default(field: FieldInfo) -> str:
    if field.default_factory is user_cache_dir:
        return "this user's cache folder"
    value: Any = field.default
    if value is PydanticUndefined or value is None:
        return ""
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _meaning(field: FieldInfo) -> str:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    named = ", ".join(f"`{choice}`" for choice in choices)
    return f"{field.description} ({named})" if named else f"{field.description}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text("utf-8")), "utf-8")
