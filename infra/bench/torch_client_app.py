"""The device's side as Flower's examples have it: each message loads torch and the model anew.

`infra/bench/federation.py` puts it in the place of `agents/federated/client_app.py`.
"""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from agents.edge.settings import EdgeSettings
from agents.federated.task import reply_content
from infra.fleet.simulated_client import trained_here
from streams.settings import load

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Trains in this process, which ends with the message."""
    home = Path(str(context.node_config["trainer"])).parent
    return Message(reply_content(trained_here(message, home, load(EdgeSettings))), reply_to=message)
