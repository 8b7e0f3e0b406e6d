"""adapt's learners over a file of outcomes, dying where they are told to.

`python adapt_run.py FOLDER EVENTS KILLS SEED` takes the outcomes of `outcomes.an_outcome` in small
batches, as the agent does, in a child that is killed with signal 9 at moments drawn from the seed.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from outcomes import adapting, an_outcome

# Batches of other sizes than those of an undisturbed run.
BATCHES = (1, 3, 7, 2)


def learn(folder: Path, events: int) -> None:
    """From wherever the database says, to the end."""
    learners = adapting(folder)
    number = 0
    while learners.next_offset < events:
        for _ in range(BATCHES[number % len(BATCHES)]):
            if learners.next_offset < events:
                learners.add(an_outcome(learners.next_offset), learners.next_offset)
        number += 1
        # The parent kills it somewhere between these lines, or in one of them.
        print(learners.next_offset, flush=True)
        learners.commit()
    learners.close()


def kill_over_and_over(folder: Path, events: int, kills: int, seed: int) -> int:
    """How often the child died before it came to the end."""
    drawn, died = random.Random(seed), 0
    while True:
        child = subprocess.Popen(
            [sys.executable, __file__, str(folder), str(events)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        lines = drawn.randrange(1, 25) if died < kills else events
        for _, _line in zip(range(lines), child.stdout, strict=False):
            pass
        if died < kills:
            child.kill()
        child.stdout.close()
        if child.wait() == 0:
            return died
        died += 1


if __name__ == "__main__":
    if len(sys.argv) == 3:
        learn(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        path, *numbers = sys.argv[1:]
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        print(kill_over_and_over(Path(path), *map(int, numbers)))
