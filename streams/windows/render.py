"""The jobs' SQL files, written out: settings put in, split into statements."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from string import Template
from typing import Final

from streams.windows.settings import JOBS, AnalyticsSettings

FOLDER: Final = Path(__file__).parent


def render(prefix: str, kafka: dict[str, str], settings: AnalyticsSettings) -> list[str]:
    """The statements in their order; the last one is the INSERT that runs.

    `prefix` is that of the topics, `kafka` the connector's options (kafka_options.py), whose
    passwords the statements hold: they must not be logged.
    """
    names = ["tables", "views", *settings.job_names, "analytics"]
    values = _values(prefix, kafka, settings)
    return [
        statement
        for name in names
        for statement in split(
            Template((FOLDER / f"{name}.sql").read_text("utf-8")).substitute(values)
        )
    ]


def fingerprint(prefix: str, settings: AnalyticsSettings) -> str:
    """12 hexadecimal digits of what the jobs are: state of other jobs does not fit them."""
    text = "\0".join(render(prefix, {}, settings))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def split(text: str) -> list[str]:
    """The statements of a file, without its comments; each ends with a semicolon and a line."""
    code = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
    return [statement.strip() for statement in re.split(r";\s*(?:\n|$)", code) if statement.strip()]


def _values(prefix: str, kafka: dict[str, str], settings: AnalyticsSettings) -> dict[str, str]:
    recent_s = settings.drift_windows * settings.window_s
    reference_s = settings.reference_windows * settings.window_s
    options = _with_clause({"connector": "kafka", **kafka})
    # A job without a checkpoint goes on where its group stopped, and else begins with what is kept.
    start = {
        "scan.startup.mode": "group-offsets",
        "properties.auto.offset.reset": "earliest",
        "scan.topic-partition-discovery.interval": "60 s",
        # All partitions in turn, a little of each: one that waits long for its turn looks silent.
        "properties.max.partition.fetch.bytes": "65536",
    }
    return {
        "prefix": prefix,
        "kafka": options,
        "source": f"{options}, {_with_clause(start)}",
        "window": _interval(settings.window_s),
        "window_s": str(settings.window_s),
        "lateness": _interval(settings.lateness_s),
        "join": _interval(settings.join_s),
        "session": _interval(settings.session_s),
        "recent": _interval(recent_s),
        "drift": _interval(recent_s + reference_s),
        "transaction_timeout_ms": str(settings.transaction_timeout_s * 1_000),
        "statistics": " UNION ALL ".join(
            f"SELECT * FROM `{view}`" for name in settings.job_names for view in JOBS[name]
        ),
    }


def _with_clause(options: dict[str, str]) -> str:
    return ", ".join(f"{_quoted(name)} = {_quoted(value)}" for name, value in options.items())


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _interval(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    time = f"{rest // 3_600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"INTERVAL '{days} {time}' DAY({max(2, len(str(days)))}) TO SECOND"
