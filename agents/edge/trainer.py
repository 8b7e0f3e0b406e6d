"""The process that trains on a device: it keeps the model in memory from round to round.

Flower starts a new ClientApp process for every message; loading torch and the model in each would
take most of a round. So the ClientApp is a shim that asks this process, over a socket that only
the device's owner may open. For each round:
1. look whether the owner's limits allow it now,
2. train on the examples of the store, and pack the delta,
3. write down what is about to leave, then hand it over.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

from agents.edge.limits import Pace, check_now, limit_process
from agents.edge.progress import Progressing
from agents.edge.settings import EdgeSettings
from agents.edge.store import ExampleStore
from agents.edge.wire import OK, SOCKET_FILE, receive, send
from agents.runtime.ready_file import touch_ready_file
from models.engine.load import Loaded, load
from models.federation.layout import Flat
from models.federation.local_step import local_delta
from models.federation.work import LocalWork
from models.learning.examples import TrainingExample
from schemas.errors import DataInvalid, HeadwaterError, SettingsInvalid
from streams.settings import load as load_settings

_REFUSED = b"refused"

log = logging.getLogger("headwater.edge")


class Trainer:
    """One device's model and examples."""

    def __init__(self, settings: EdgeSettings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._store = ExampleStore(folder)
        self._loaded: Loaded = load(
            settings.model, settings.cache_dir, settings.device, settings.dtype
        )

    def close(self) -> None:
        self._store.close()

    def train(self, work: bytes, adapter: bytes) -> bytes:
        """The packed delta of one round. Raises an error of ours where it is refused."""
        begun_s = time.monotonic()
        check_now(self._settings)
        asked = self._bounded(_decoded(work))
        if asked.noise_multiplier < self._settings.noise_min:
            raise DataInvalid(
                f"The round has noise of {asked.noise_multiplier:g} norms on the device; its owner "
                f"wants {self._settings.noise_min:g}.",
                "HEADWATER_FEDERATE_DEVICE_NOISE or HEADWATER_EDGE_NOISE_MIN says otherwise.",
            )
        flat = np.frombuffer(adapter, "<f4").astype(np.float32)
        examples = self._store.examples()
        used = min(len(examples), asked.examples_max)
        delta = self._trained(asked, flat, examples, used)
        seconds = time.monotonic() - begun_s
        self._store.note_sent(asked.round_id, used, delta, seconds)
        log.info(
            "round %s: %d examples, %.1f s, %d bytes leave",
            asked.round_id,
            used,
            seconds,
            len(delta),
        )
        return delta

    def _trained(
        self, asked: LocalWork, flat: Flat, examples: list[TrainingExample], used: int
    ) -> bytes:
        pace = Pace(self._settings.cpu_share)
        steps = asked.epochs * math.ceil(used / max(asked.batch_rows, 1))
        with Progressing(self._folder, asked.round_id, steps) as progress:

            def after_step() -> None:
                progress.step()
                pace.rest()

            return local_delta(self._loaded, asked, flat, examples, after_step)

    def _bounded(self, work: LocalWork) -> LocalWork:
        """What the owner allows of what the server asks."""
        return msgspec.structs.replace(
            work,
            norm_max=min(work.norm_max, self._settings.norm_max),
            epochs=min(work.epochs, self._settings.epochs_max),
        )

    def answer(self, connection: socket.socket) -> None:
        """One request, refused or done; raises for nothing that a request brings about."""
        try:
            delta = self.train(receive(connection), receive(connection))
            send(connection, OK, delta)
        except HeadwaterError as error:
            log.warning("a round is refused: %s", error)
            # The message alone: it names no example.
            _refuse(connection, error.message)
        except OSError as error:
            log.warning("the ClientApp has gone: %s", error)
        except Exception:
            # Too little memory, or work that no server of ours asks for: what torch says of it
            # might hold an example, so it stays here.
            log.exception("a round failed")
            _refuse(connection, "Training failed; the device's log says why.")


def _refuse(connection: socket.socket, reason: str) -> None:
    with suppress(OSError):
        send(connection, _REFUSED, reason.encode())


def _decoded(work: bytes) -> LocalWork:
    try:
        return msgspec.json.decode(work, type=LocalWork)
    except msgspec.DecodeError as error:
        raise DataInvalid(
            f"The server asks for what this device does not know: {error}.",
            "Run the same version of Headwater on both.",
        ) from error


def serve(settings: EdgeSettings) -> None:
    """Answers one request after the other, until the process is told to end."""
    folder = settings.folder.expanduser().absolute()
    limit_process(settings)
    trainer = Trainer(settings, folder)
    path = folder / SOCKET_FILE
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        os.umask(0o077)
        _bind(listener, path)
        listener.listen()
        touch_ready_file()
        log.info("ready")
        while True:
            connection, _ = listener.accept()
            with connection:
                trainer.answer(connection)


def _bind(listener: socket.socket, path: Path) -> None:
    try:
        listener.bind(str(path))
    except OSError as error:
        raise SettingsInvalid(
            f"The trainer cannot listen at {path}: {error}.",
            "Give the device a folder with a shorter path (about 90 characters at most).",
        ) from error


def main() -> None:
    """Run the trainer with the settings of the environment."""
    logging.basicConfig(stream=sys.stdout, level="INFO", format="[%(asctime)s] %(message)s")
    serve(load_settings(EdgeSettings))


if __name__ == "__main__":
    main()
