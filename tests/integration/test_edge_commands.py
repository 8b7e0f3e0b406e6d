"""`headwater edge` from key to round, as an operator and two device owners type it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import Terminal, until
from tiny_model import build_tiny_model

from agents.rounds.superlink import APP
from infra.ports import free_ports
from models.engine.load import load
from models.federation.outcome import OUTCOME_FILE
from models.learning.adapter_files import WEIGHTS_FILE, write_adapter
from models.learning.lora import LoraShape, new_adapter

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(300)]


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    (superlink_port,) = free_ports(1)
    env = os.environ | {
        "HEADWATER_FEDERATE_SUPERLINK": f"127.0.0.1:{superlink_port}",
        "HEADWATER_FEDERATE_SUPERLINK_FOLDER": str(tmp_path / "superlink"),
        "HEADWATER_EDGE_DTYPE": "float32",
        "HEADWATER_EDGE_DEVICE": "cpu",
    }
    return Terminal(tmp_path, env)


def test_a_device_joins_takes_part_and_is_removed(terminal: Terminal) -> None:
    folder = terminal.folder
    model = build_tiny_model(folder / "model")
    (gate_port,) = free_ports(1)
    ca = folder / "superlink" / "gate" / "ca.pem"
    known, unknown = (["--data", str(folder / name)] for name in ("known", "unknown"))
    reach = ["--superlink", f"127.0.0.1:{gate_port}", "--ca", str(ca), "--model", str(model)]
    with terminal.beside("serve", "edge", "serve", "--port", str(gate_port)) as served:
        until(lambda: "headwater edge join" in served.read_text())
        public = terminal.headwater("edge", "key", *known).strip()
        terminal.headwater("edge", "key", *unknown)
        terminal.headwater("edge", "admit", public, "--owner", "anna", "--name", "phone")
        terminal.headwater("edge", "add-example", "Deep?", "Nine metres.", *known)
        with (
            terminal.beside("known", "edge", "join", *reach, *known) as joined,
            terminal.beside("unknown", "edge", "join", *reach, *unknown) as refused,
        ):
            until(lambda: terminal.online() == ["anna/phone"])
            until(lambda: "Is this device admitted?" in refused.read_text())
            outcome = _flwr_run(terminal, model, "first")
            assert len(outcome["digests"]) == 1
            until(lambda: "trained on 1 examples" in joined.read_text())
            (sent,) = map(json.loads, _lines(terminal, "edge", "account", "--json", *known))
            assert sent["sha256"] in outcome["digests"].values()
        until(lambda: terminal.online() == [])
        with terminal.beside("known", "edge", "join", *reach, *known) as joined:
            # Asked for while the device was away: it takes part once it is back.
            assert len(_flwr_run(terminal, model, "second")["digests"]) == 1
            assert len(_lines(terminal, "edge", "account", "--json", *known)) == 2
            terminal.headwater("edge", "remove", "anna/phone")
            assert terminal.online() == []
            until(lambda: "supernode died" in joined.read_text())
        assert "no device" in terminal.headwater("edge", "remove", "anna/phone", status=1)


def _lines(terminal: Terminal, *arguments: str) -> list[str]:
    return terminal.headwater(*arguments).splitlines()


def _flwr_run(terminal: Terminal, model: Path, name: str) -> dict[str, dict[str, str]]:
    """The app by hand, as somebody does who knows Flower."""
    loaded = load(str(model), terminal.folder, "cpu", "float32")
    adapter = terminal.folder / "adapter"
    write_adapter(adapter, new_adapter(loaded.model, LoraShape()), LoraShape(), "tiny")
    home = terminal.folder / "flwr"
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(
        f'[superlink.own]\naddress = "{terminal.env["HEADWATER_FEDERATE_SUPERLINK"]}"\n'
        f'root-certificates = "{terminal.folder}/superlink/ca.pem"\n'
    )
    result = terminal.folder / name
    config = f'adapter="{adapter / WEIGHTS_FILE}" result="{result}" clients=1 clients-min=1'
    flwr = Path(sys.executable).parent / "flwr"
    done = subprocess.run(
        [str(flwr), "run", str(APP), "own", "--run-config", config],
        env=terminal.env
        | {
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    until((result / OUTCOME_FILE).exists)
    found: dict[str, dict[str, str]] = json.loads((result / OUTCOME_FILE).read_bytes())
    return found
