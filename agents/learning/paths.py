"""Where a learner keeps what must not be lost; for which no library has to be loaded."""

from __future__ import annotations

from pathlib import Path

from agents.settings import LearnSettings

_LEDGER_FILE = "ledger.db"
_VERSIONS = "versions"
_GATE_SET_FILE = "gate.jsonl"


def learning_folder(settings: LearnSettings) -> Path:
    """Ledger, noise keys and versions."""
    return settings.folder.expanduser().absolute()


def ledger_path(settings: LearnSettings) -> Path:
    """The ledger of all adapters."""
    return learning_folder(settings) / _LEDGER_FILE


def gate_set_path(settings: LearnSettings) -> Path:
    """The gate's questions."""
    named = settings.gate_set
    return learning_folder(settings) / _GATE_SET_FILE if named is None else named.expanduser()


def versions_folder(settings: LearnSettings) -> Path:
    """The versions of all adapters, each in a folder of its own."""
    return learning_folder(settings) / _VERSIONS
