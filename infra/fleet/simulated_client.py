"""The device's side in Flower's simulation: it trains itself, in a process that it shares.

There is no resident trainer to ask: ray's workers stay, and keep the model from device to device.
Store, training and packing are those of real devices.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from agents.edge.settings import EdgeSettings
from agents.edge.store import ExampleStore
from agents.federated.task import adapter_of, reply_content, work_of
from models.engine.load import Loaded, load
from models.federation.local_step import local_delta
from models.federation.work import LocalWork


def simulated_client(homes: Path, settings: EdgeSettings) -> ClientApp:
    """Devices whose stores lie in `homes`/0, `homes`/1 and so on."""
    app = ClientApp()

    # Flower sends this function to ray's workers with each message: it holds names only.
    @app.train()
    def train(message: Message, context: Context) -> Message:
        home = homes / str(context.node_config["partition-id"])
        return Message(reply_content(trained_here(message, home, settings)), reply_to=message)

    return app


def trained_here(message: Message, home: Path, settings: EdgeSettings) -> bytes:
    """The packed delta of the device in `home`, trained in this process."""
    loaded = _loaded(settings.model, settings.cache_dir, settings.device, settings.dtype)
    store = ExampleStore(home)
    try:
        examples = store.examples()
    finally:
        store.close()
    work = msgspec.json.decode(work_of(message), type=LocalWork)
    flat = np.frombuffer(adapter_of(message), "<f4").astype(np.float32)
    return local_delta(loaded, work, flat, examples)


@cache
def _loaded(model: str, cache_dir: Path, device: str, dtype: str) -> Loaded:
    torch.set_num_threads(1)
    return load(model, cache_dir, device, dtype)
