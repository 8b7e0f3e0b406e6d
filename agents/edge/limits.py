"""What training may take of the device."""

from __future__ import annotations

import resource
import time

import psutil
import torch

from agents.edge.settings import EdgeSettings
from models.background import be_nice
from schemas.errors import ModelBusy

# The machine is idle while others use less of it than this.
_BUSY_PERCENT = 40.0
_LOOK_S = 0.5


def limit_process(settings: EdgeSettings) -> None:
    """Threads, priority and memory of this process, for as long as it lives."""
    torch.set_num_threads(settings.threads)
    be_nice(settings.nice)
    if settings.memory_mib_max is not None:
        limit = settings.memory_mib_max * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def check_now(settings: EdgeSettings) -> None:
    """Raises ModelBusy where the owner's limits forbid training at this moment."""
    battery = psutil.sensors_battery() if settings.charging_only else None
    if battery is not None and not battery.power_plugged:
        raise ModelBusy("The device is on battery.", "It joins the next round.")
    if settings.idle_only and psutil.cpu_percent(_LOOK_S) > _BUSY_PERCENT:
        raise ModelBusy("The device is busy.", "It joins the next round.")


class Pace:
    """Rests after each step so that training has `cpu_share` of the time."""

    def __init__(self, cpu_share: float) -> None:
        self._cpu_share = cpu_share
        self._begun_s = time.monotonic()

    def rest(self) -> None:
        """Called after a step."""
        worked_s = time.monotonic() - self._begun_s
        time.sleep(worked_s * (1.0 / self._cpu_share - 1.0))
        self._begun_s = time.monotonic()
