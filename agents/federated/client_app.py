"""The device's side, which Flower starts anew for every message: it asks the device's trainer.

The reply is one array, the packed delta: no loss, no count of examples, nothing else.
"""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from agents.edge.wire import train as ask_trainer
from agents.federated.task import adapter_of, reply_content, work_of
from schemas.errors import HeadwaterError

# Any number that Flower does not use itself.
_REFUSED = 900

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Has the resident trainer (node config `trainer`: its socket) do the round's work."""
    try:
        trainer = Path(str(context.node_config["trainer"]))
        delta = ask_trainer(trainer, work_of(message), adapter_of(message))
    except HeadwaterError as error:
        return Message(Error(code=_REFUSED, reason=error.message), reply_to=message)
    return Message(reply_content(delta), reply_to=message)
