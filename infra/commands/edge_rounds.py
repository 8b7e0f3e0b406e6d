"""What `headwater edge join` prints: what leaves the device, and how its rounds go."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from agents.edge.progress import read_progress
from agents.edge.store import ExampleStore
from infra.commands.shell import err, out
from infra.supervisor import Notice

_LOOK_INTERVAL_S: Final = 1.0


def tell_what_leaves(folder: Path) -> int:
    """Also says how many examples there are."""
    store = ExampleStore(folder)
    try:
        count = store.count()
    finally:
        store.close()
    out.print(
        f"{count} examples are in {folder}, encrypted. They stay there.\n"
        "In each round one array leaves: how far training moved the adapter, cut to a norm.\n"
        "`headwater edge account` lists every one; docs/FEDERATION.md says more. Ctrl-C ends it.",
        markup=False,
    )
    return count


def show(notice: Notice) -> None:
    """Which of the device's parts run, and where to look for why one does not."""
    if notice.what in ("died", "ready"):
        err.print(f"{notice.part} {notice.what} {notice.detail}", style="dim", markup=False)
    if notice.part == "topic-reader" and notice.what == "died":
        err.print("Its log is logs/topic-reader.log.", markup=False)
    if notice.part == "supernode" and notice.what == "died":
        err.print("Is this device admitted? Its log is logs/supernode.log.", markup=False)


async def show_rounds(folder: Path, known: int) -> None:
    """Prints how rounds of this device go and each growth of its `known` examples, for ever."""
    # What a trainer that was killed left is no news.
    store, told = ExampleStore(folder), read_progress(folder)
    try:
        seen = max((one.number for one in store.sent()), default=0)
        while True:
            if (count := store.count()) != known:
                known = count
                out.print(f"{known} examples now")
            now = read_progress(folder)
            if now is not None and now != told:
                told = now
                out.print(f"round {now.round_id}: step {now.done} of {now.steps}", markup=False)
            for one in store.sent(after=seen):
                seen = one.number
                out.print(
                    f"round {one.round_id}: trained on {one.examples} examples for "
                    f"{one.seconds:.1f} s; {one.bytes:,} bytes left, sha256 {one.sha256[:16]}",
                    markup=False,
                )
            await asyncio.sleep(_LOOK_INTERVAL_S)
    finally:
        store.close()
