"""A study as the settings want it. No Kafka here."""

from __future__ import annotations

from agents.studying.settings import StudySettings
from models.engine.load import load
from models.learning.lora import LoraShape
from models.learning.optimizers import OptimizerSettings
from models.studying.curriculum import Curriculum
from models.studying.general import read_general_set
from models.studying.student import StudentSettings
from models.studying.study import Study


def open_study(settings: StudySettings, model: str, live: str | None) -> Study:
    """The study in the settings' folder; a new one numbers its versions from `live`'s on.

    Raises SettingsInvalid, DataInvalid, ModelUnavailable.
    """
    general = read_general_set(settings.general_set_path)
    loaded = load(model, settings.cache_dir, settings.device, settings.dtype)
    folder = settings.study_folder
    study = Study(loaded, curriculum(settings), general, folder, settings.adapter, model)
    # A name never comes again with other weights, also where the folder was lost.
    study.notes.version_number = max(
        study.notes.version_number, _number(live or "", settings.adapter)
    )
    return study


def curriculum(settings: StudySettings) -> Curriculum:
    """What is studied, and how."""
    targets = tuple(name.strip() for name in settings.targets.split(","))
    return Curriculum(
        StudentSettings(
            LoraShape(settings.rank, 2.0 * settings.rank, targets),
            OptimizerSettings("adam", settings.learning_rate),
        ),
        new=settings.passages_new,
        old=settings.passages_old,
        general=settings.texts_general,
        reservoir=settings.replayed_max,
        held_out_of=settings.held_out_of,
        tolerance=settings.tolerance,
    )


def _number(version: str, adapter: str) -> int:
    number = version.removeprefix(f"{adapter}-")
    return int(number) if number.isascii() and number.isdigit() else 0
