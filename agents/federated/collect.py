"""Asking devices and waiting: for enough, for a moment more, and never past the deadline."""

from __future__ import annotations

import time
from collections.abc import Sequence

from flwr.app import Message
from flwr.serverapp import Grid

_POLL_S = 0.25


def online(grid: Grid, wanted: set[int], enough: int, timeout_s: float) -> list[int]:
    """The wanted nodes that are online (all, for none wanted), once there are enough of them."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = [node for node in sorted(grid.get_node_ids()) if not wanted or node in wanted]
        if len(found) >= enough or time.monotonic() > deadline:
            return found
        time.sleep(_POLL_S)


def collect(
    grid: Grid,
    messages: Sequence[Message],
    enough: int,
    timeout_s: float,
    grace_s: float,
    least: int = 0,
) -> list[Message]:
    """The replies, errors too, that came until one of these:

    all are there; `grace_s` after `enough` good ones; `timeout_s`; so many failed or left that
    `least` good ones cannot come any more. Flower's own loop waits for every device, so that one
    which vanished holds up all others.
    """
    waiting = set(grid.push_messages(messages))
    replies: list[Message] = []
    deadline = time.monotonic() + timeout_s
    while waiting and time.monotonic() < deadline:
        got = list(grid.pull_messages(waiting))
        replies += got
        waiting -= {reply.metadata.reply_to_message_id for reply in got}
        good = sum(not reply.has_error() for reply in replies)
        if got and good >= enough:
            deadline = min(deadline, time.monotonic() + grace_s)
        if good + len(waiting) < least:
            break
        if waiting:
            time.sleep(_POLL_S)
    return replies
