"""One process of the benchmark: a task as JSON on standard input, what was measured on output."""

from __future__ import annotations

import asyncio
import sys

import msgspec

from infra.bench.engine.requests import OURS, Measured, Task


def main() -> None:
    """Measure the task that is written to standard input."""
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    sys.stdout.buffer.write(msgspec.json.encode(_measure(task)))


def _measure(task: Task) -> Measured:
    # Imported late: each process needs one of them.
    if task.contestant in OURS:
        from infra.bench.engine.ours import measure

        return asyncio.run(measure(task))
    from infra.bench.engine import peers

    if task.contestant == "transformers":
        return peers.transformers_batching(task)
    if task.contestant == "llama.cpp":
        return peers.llama_cpp(task)
    return peers.static_batches(task)


if __name__ == "__main__":
    main()
