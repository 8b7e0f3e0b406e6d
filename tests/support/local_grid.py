"""Flower's grid inside the test's process: each node is a function from the work to its delta."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flwr.app import Error, Message
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from agents.federated.task import reply_content, work_of

# From the work in JSON to the packed delta; None: it never answers.
Device = Callable[[bytes], bytes | None]


class LocalGrid(Grid):
    """A device that raises replies with an error, as a ClientApp does."""

    def __init__(self, devices: Mapping[int, Device]) -> None:
        # Messages refuse to be built without.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
        self._devices = devices
        self._replies: dict[str, Message] = {}

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *_: Any, **__: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self._devices)

    def get_nodes(self) -> Iterable[NodeInfo]:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            identity = str(uuid.uuid4())
            message.metadata.__dict__["_message_id"] = identity
            ids.append(identity)
            reply = self._answer(message)
            if reply is not None:
                reply.metadata.__dict__["_src_node_id"] = message.metadata.dst_node_id
                self._replies[identity] = reply
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(one) for one in list(message_ids) if one in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        raise NotImplementedError

    def _answer(self, message: Message) -> Message | None:
        try:
            delta = self._devices[message.metadata.dst_node_id](work_of(message))
        except RuntimeError as error:
            return Message(Error(code=900, reason=str(error)), reply_to=message)
        return None if delta is None else Message(reply_content(delta), reply_to=message)
