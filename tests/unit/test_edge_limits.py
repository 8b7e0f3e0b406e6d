"""What a device's owner forbids, and what the trainer says to a server that asks for it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest
from tiny_model import build_tiny_model

from agents.edge import limits
from agents.edge.example_files import decode_example
from agents.edge.limits import Pace, check_now
from agents.edge.progress import Progress, Progressing, read_progress
from agents.edge.settings import EdgeSettings
from agents.edge.store import ExampleStore
from agents.edge.trainer import Trainer
from agents.edge.wire import OK, receive, send
from models.engine.load import load
from models.federation.deltas import norm_of, unpack
from models.federation.layout import Flat, flatten, layout_digest
from models.federation.work import LocalWork
from models.learning.lora import LoraShape, new_adapter
from schemas.errors import ModelBusy


def plugged(state: bool | None) -> Any:
    """A battery, or none, as psutil tells."""
    return lambda: None if state is None else SimpleNamespace(power_plugged=state)


@pytest.mark.parametrize(
    ("state", "allowed"), [(True, True), (False, False), (None, True)], ids=str
)
def test_on_battery_a_round_is_refused_where_the_owner_says_so(
    monkeypatch: pytest.MonkeyPatch, state: bool | None, allowed: bool
) -> None:
    monkeypatch.setattr(psutil, "sensors_battery", plugged(state), raising=False)
    check_now(EdgeSettings())
    if allowed:
        check_now(EdgeSettings(charging_only=True))
        return
    with pytest.raises(ModelBusy, match="on battery"):
        check_now(EdgeSettings(charging_only=True))


def test_while_others_use_the_machine_a_round_is_refused_where_the_owner_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "_LOOK_S", 0.2)
    # More or less than is ever used.
    monkeypatch.setattr(limits, "_BUSY_PERCENT", 101.0)
    check_now(EdgeSettings(idle_only=True))
    monkeypatch.setattr(limits, "_BUSY_PERCENT", -1.0)
    check_now(EdgeSettings())
    with pytest.raises(ModelBusy, match="is busy"):
        check_now(EdgeSettings(idle_only=True))


def test_training_rests_so_that_it_has_its_share_of_the_time() -> None:
    begun_s = time.monotonic()
    pace = Pace(0.25)
    time.sleep(0.05)
    pace.rest()
    assert 0.2 <= time.monotonic() - begun_s < 1.0


_TAKE_A_GIBIBYTE = """
from agents.edge.limits import limit_process
from agents.edge.settings import EdgeSettings
limit_process(EdgeSettings(memory_mib_max=512, nice=0))
bytearray(2**30)
"""


def test_no_more_memory_is_taken_than_the_owner_allows() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _TAKE_A_GIBIBYTE], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("MemoryError")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def trainer(tmp_path: Path, model: Path) -> Iterator[Trainer]:
    store = ExampleStore(tmp_path)
    store.add(decode_example(b'{"prompt": "Deep?", "answer": "Nine metres."}'))
    store.close()
    settings = EdgeSettings(model=str(model), device="cpu", dtype="float32", norm_max=0.01)
    found = Trainer(settings, tmp_path)
    yield found
    found.close()


@cache
def weights(model: Path) -> dict[str, Flat]:
    adapter = new_adapter(load(str(model), model, "cpu", "float32").model, LoraShape())
    return {name: tensor.numpy() for name, tensor in adapter.items()}


def a_round(model: Path, **changed: Any) -> tuple[bytes, bytes]:
    """The server's question: the work and the weights."""
    shape, arrays = LoraShape(), weights(model)
    work = LocalWork(
        round_id="r",
        layout=layout_digest(arrays),
        rank=shape.rank,
        alpha=shape.alpha,
        targets=shape.targets,
        norm_max=1.0,
    )
    return msgspec.json.encode(msgspec.structs.replace(work, **changed)), flatten(arrays).tobytes()


def answered(trainer: Trainer, work: bytes, adapter: bytes) -> tuple[bytes, bytes]:
    """What comes back over the device's socket."""
    here, there = socket.socketpair()
    with here, there:
        send(here, work, adapter)
        trainer.answer(there)
        return receive(here), receive(here)


def test_a_delta_is_no_longer_than_the_owner_allows_whatever_the_server_asks(
    trainer: Trainer, model: Path
) -> None:
    work, adapter = a_round(model, norm_max=5.0, epochs=1_000)
    status, payload = answered(trainer, work, adapter)
    assert status == OK
    assert norm_of(unpack(payload, len(adapter) // 4)) == pytest.approx(0.01, rel=1e-3)


def test_a_round_with_less_noise_than_the_owner_wants_is_refused(
    model: Path, tmp_path: Path
) -> None:
    settings = EdgeSettings(model=str(model), device="cpu", dtype="float32", noise_min=0.5)
    trainer = Trainer(settings, tmp_path)
    status, reason = answered(trainer, *a_round(model, noise_multiplier=0.4))
    trainer.close()
    assert status != OK
    assert b"its owner wants 0.5" in reason


def test_how_far_a_round_is_can_be_read_until_it_ends(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Progressing(tmp_path, "r", 3) as progress:
        assert read_progress(tmp_path) == Progress("r", 0, 3)
        progress.step()
        assert read_progress(tmp_path) == Progress("r", 1, 3)
        raise RuntimeError
    assert read_progress(tmp_path) is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rank": 8}, b"not one of rank 8"),
        ({"targets": ("no_such_layer",)}, b""),
        ({"batch_rows": 0}, b"Training failed"),
    ],
    ids=str,
)
def test_work_that_cannot_be_done_is_refused_and_the_trainer_lives_on(
    trainer: Trainer, model: Path, changed: dict[str, Any], said: bytes
) -> None:
    status, reason = answered(trainer, *a_round(model, **changed))
    assert status != OK and said in reason
    # Nothing of the owner's, and nothing of a traceback.
    assert b"metres" not in reason and b"Traceback" not in reason
    work, adapter = a_round(model)
    assert answered(trainer, work, adapter[:-1])[0] != OK
    assert answered(trainer, b"{}", adapter)[0] != OK
    assert answered(trainer, work, np.zeros(len(adapter) // 4, "<f4").tobytes())[0] == OK
