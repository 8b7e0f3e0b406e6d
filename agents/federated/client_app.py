"""The device's side, which Flower starts anew for every message: it asks the device's trainer.

The reply is one array, the packed delta, or in a secure sum the masked one: no loss, no count of
examples, nothing else.
"""

from __future__ import annotations

import math
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from agents.edge.wire import train as ask_trainer
from agents.federated.task import LEVELS, adapter_of, is_secure, reply_content, work_of
from models.federation.deltas import unpack
from schemas.errors import HeadwaterError, SettingsInvalid

# Any number that Flower does not use itself.
_REFUSED = 900

app = ClientApp()


def answering(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Masks the delta where a secure sum is asked for; a refusal becomes its one sentence."""
    try:
        if is_secure(message):
            # Imported late: this process lives for one message, and most need none of it.
            from flwr.client.mod import secaggplus_mod

            return secaggplus_mod(message, context, call_next)
        return call_next(message, context)
    except HeadwaterError as error:
        return Message(Error(code=_REFUSED, reason=error.message), reply_to=message)


@app.train(mods=[answering])
def train(message: Message, context: Context) -> Message:
    """Has the resident trainer (node config `trainer`: its socket) do the round's work."""
    if "trainer" not in context.node_config:
        raise SettingsInvalid(
            "This SuperNode knows no trainer.",
            """Give it --node-config 'trainer="FOLDER/trainer.sock"'.""",
        )
    trainer = Path(str(context.node_config["trainer"]))
    work, adapter = work_of(message), adapter_of(message)
    delta = ask_trainer(trainer, work, adapter)
    if not is_secure(message):
        return Message(reply_content(delta), reply_to=message)
    return Message(_for_masking(delta, len(adapter) // 4), reply_to=message)


def _for_masking(delta: bytes, size: int) -> RecordDict:
    """The delta as the secure sum takes it: every device weighs 1.

    A little shorter, so that with the rounding to whole numbers it is no longer than it was cut to.
    """
    from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
    from flwr.compat.common import recorddict_compat as compat

    values = unpack(delta, size) * (1.0 - 2.0 * math.sqrt(size) / LEVELS)
    result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([values]), 1, {})
    return compat.fitres_to_recorddict(result, keep_input=False)
