"""The questions that learn's gate asks where none are set."""

from __future__ import annotations

from agents.learning.paths import gate_set_path
from agents.settings import LearnSettings
from streams.settings import load


def make_gate_set() -> None:
    """Writes ours, on the standard library, where there are none yet."""
    settings = load(LearnSettings)
    path = gate_set_path(settings)
    if settings.gate_set is None and not path.exists():
        # Imported late: it reads the docstrings of many modules.
        from infra.demo.questions import write_gate_set

        write_gate_set(path)
