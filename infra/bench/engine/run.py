"""Runs all contestants in turn, several rounds of them: a machine's speed changes by the minute."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from infra.bench.engine.requests import HEADWATER, OURS, UNGUESSED, Measured, Task, make_requests
from infra.commands.agent import SPIN_COUNT
from schemas.errors import SettingsInvalid

CONCURRENCIES: Final = (1, 4, 8, 16, 32)
# Of which every contestant is measured, and the goals speak.
AT: Final = 16
ADAPTERS: Final = (0, 1, 8)
STATIC_BATCHES: Final = (4, 8, 16, 32)
RIVER: Final = "river"

Report = Callable[[Measured], None]


def tasks(threads: int) -> list[Task]:
    """What is measured in one round, so ordered that what is compared is near in time."""
    ours = [_task(HEADWATER, c, threads) for c in CONCURRENCIES]
    adapted = [_task(HEADWATER, AT, threads, adapters) for adapters in ADAPTERS[1:]]
    alone = [_task(name, 1, threads) for name in (UNGUESSED, "generate", "llama.cpp")]
    static = [_task("static", size, threads) for size in STATIC_BATCHES]
    at, others = ours[CONCURRENCIES.index(AT)], [t for t in ours if t.concurrency != AT]
    return [
        *others[:1],
        *alone,
        *others[1:],
        *static,
        at,
        *adapted,
        _task(RIVER, AT, threads),
        _task("transformers", AT, threads),
    ]


def measure(task: Task) -> Measured:
    """One task, in a process of its own. Raises SettingsInvalid with the end of its log."""
    # As `headwater agent` sets it; the peers have what they have by default.
    own = {"GOMP_SPINCOUNT": SPIN_COUNT} if task.contestant in OURS else {}
    done = subprocess.run(
        [sys.executable, "-m", "infra.bench.engine.contestant"],
        input=msgspec.json.encode(task),
        capture_output=True,
        env={**os.environ, **own},
        check=False,
    )
    if done.returncode:
        end = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise SettingsInvalid(
            f"{task.contestant} at {task.concurrency} failed: {''.join(end)}", "See the message."
        )
    return msgspec.json.decode(done.stdout, type=Measured)


def ratios(found: Sequence[Measured]) -> dict[str, float | None]:
    """What the goals speak of; of several rounds, the median of their ratios."""
    rounds = max((m.round for m in found), default=-1) + 1
    each = [_ratios([m for m in found if m.round == number]) for number in range(rounds)]
    names = each[0] if each else {}
    return {name: _median([found[name] for found in each]) for name in names}


def _ratios(found: Sequence[Measured]) -> dict[str, float | None]:
    def speed(contestant: str, concurrency: int, adapters: int = 0) -> float | None:
        wanted = (contestant, concurrency, adapters)
        speeds = [
            m.tokens_per_s for m in found if (m.contestant, m.concurrency, m.adapters) == wanted
        ]
        return speeds[0] if speeds and speeds[0] else None

    ours, alone, one = speed(HEADWATER, AT), speed(HEADWATER, 1), speed("generate", 1)
    static = [s for size in STATIC_BATCHES if (s := speed("static", size))]
    return {
        f"at {AT}: times generate per request (goal 6)": _over(ours, one),
        f"at {AT}: times the best static batches (goal 1.4)": _over(ours, max(static, default=0)),
        f"at {AT}: times transformers' continuous batching (goal 1.8)": _over(
            ours, speed("transformers", AT)
        ),
        "alone: times generate (goal 1.5)": _over(alone, one),
        "alone: times llama.cpp": _over(alone, speed("llama.cpp", 1)),
        "alone: times without guesses": _over(alone, speed(UNGUESSED, 1)),
        f"at {AT}: share that 1 adapter leaves": _over(speed(HEADWATER, AT, 1), ours),
        f"at {AT}: share that 8 adapters leave (goal 0.85)": _over(speed(HEADWATER, AT, 8), ours),
        f"at {AT}: share that the river delivers (goal 0.95)": _over(speed(RIVER, AT), ours),
    }


def _task(contestant: str, concurrency: int, threads: int, adapters: int = 0) -> Task:
    """Twice as many requests as are open at a time, at least, and not the same ones to warm up."""
    count = max(2 * concurrency, 6)
    if contestant in ("static", "transformers", RIVER) or concurrency == AT:
        count = 3 * AT
    requests = make_requests(count + concurrency)
    return Task(
        contestant,
        concurrency,
        requests[:count],
        requests[count:],
        adapters,
        threads,
    )


def _over(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 2) if known else None
