"""`headwater agent`: one worker of an agent in the foreground."""

from __future__ import annotations

import os
from typing import Annotated, Final

import typer

from agents.studying.settings import StudySettings
from infra.commands.gate_set import make_gate_set
from infra.river import ADAPT, EVERYTHING, FEDERATE, GATEWAY, MONITOR, STUDY, TRACK
from schemas.errors import SettingsInvalid
from streams.admin import check_connection
from streams.settings import KafkaSettings, load

# Turns that an OpenMP thread waits for the next product before it sleeps: some 0.1 ms.
SPIN_COUNT: Final = "10000"
_WORKERS: Final = (*EVERYTHING, STUDY, FEDERATE, TRACK)


def agent(name: Annotated[str, typer.Argument(help=", ".join(_WORKERS))]) -> None:
    """Run one worker of an agent in the foreground."""
    if name not in _WORKERS:
        raise SettingsInvalid(f"There is no agent {name!r}.", f"The agents: {', '.join(_WORKERS)}.")
    # Before anything heavy is loaded, and for some that would try on for minutes.
    check_connection(load(KafkaSettings))
    limit_spinning()
    if name == "ingest":
        from agents.ingest import main
    elif name == "retrieve":
        from agents.retrieve import main
    elif name == "generate":
        from agents.generate import main
    elif name == "join":
        from agents.join import main
    elif name == "learn":
        make_gate_set()
        from agents.learn import main
    elif name == STUDY:
        _make_general_set()
        from agents.study import main
    elif name == ADAPT:
        from agents.adapt import main
    elif name == MONITOR:
        from agents.monitor.agent import main
    elif name == GATEWAY:
        from infra.pages.serve import main
    elif name == FEDERATE:
        make_gate_set()
        from infra.federation import operator_settings

        folder = str(operator_settings().superlink_folder)
        os.environ.setdefault("HEADWATER_FEDERATE_SUPERLINK_FOLDER", folder)
        from agents.federate import main
    else:
        from agents.track import main
    main()


def _make_general_set() -> None:
    """The general texts that study follows the base model on, where none are set."""
    settings = load(StudySettings)
    path = settings.general_set_path
    if settings.general_set is None and not path.exists():
        # Imported late: it reads the docstrings of many modules.
        from infra.demo.general_texts import write_general_set

        write_general_set(path)


def limit_spinning() -> None:
    """Set how long OpenMP's threads spin at barriers; read when torch is loaded.

    Long spinning loses the cores to the other agents of a small machine, and threads that fall
    asleep between two products halve the engine's speed (docs/LOG.md).
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
