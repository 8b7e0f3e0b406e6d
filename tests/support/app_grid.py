"""The real ClientApp of several devices inside the test's process, with trainers of a kind."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key
from local_grid import LocalGrid

from agents.edge.wire import OK, receive, send
from agents.federated.client_app import app


class AppGrid(LocalGrid):
    """`vanishing` names the stage of a secure sum from which a node does not answer any more."""

    def __init__(self, trainers: Mapping[int, Path], vanishing: Mapping[int, str]) -> None:
        super().__init__(dict.fromkeys(trainers, lambda work: work))
        self._vanishing = vanishing
        self._gone: set[int] = set()
        self._contexts = {
            node: Context(1, node, {"trainer": str(path)}, RecordDict(), {})
            for node, path in trainers.items()
        }
        # What the server was sent, in any stage.
        self.seen: list[Message] = []

    def _answer(self, message: Message) -> Message | None:
        node = message.metadata.dst_node_id
        stage = message.content.config_records[RECORD_KEY_CONFIGS].get(Key.STAGE)
        if stage == self._vanishing.get(node):
            self._gone.add(node)
        if node in self._gone:
            return None
        copied = deepcopy(message)
        try:
            # The protocol takes the question apart, and devices share what the wire would copy.
            reply = app(copied, self._contexts[node])
        except (KeyError, ValueError) as error:
            # Flower makes an error reply of it.
            reply = Message(Error(0, repr(error)), reply_to=copied)
        self.seen.append(reply)
        return reply


@contextmanager
def trainers(folder: Path, deltas: Mapping[int, bytes]) -> Iterator[dict[int, Path]]:
    """Sockets by node; whoever asks there gets the node's delta."""
    paths = {node: folder / f"{node}.sock" for node in deltas}
    with ExitStack() as stack:
        for node, delta in deltas.items():
            stack.enter_context(_trainer(paths[node], delta))
        yield paths


@contextmanager
def _trainer(path: Path, delta: bytes) -> Iterator[None]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()

    def answer() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                receive(connection), receive(connection)
                send(connection, OK, delta)

    thread = threading.Thread(target=answer, name=f"headwater-trainer-{path.stem}")
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
