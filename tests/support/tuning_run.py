"""A tuning that can be killed at any boundary of its work; run as a script by the fault tests.

    python tuning_run.py MODEL FOLDER KILLS

As in `learning_run`: each life is forked, resumes from FOLDER, and is killed (SIGKILL) at a
boundary that moves on by one from life to life: every fsync and every SQL statement.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from learning_run import Reaper

from agents.settings import LearnSettings
from agents.tuning.contest import Contest
from agents.tuning.rules import TuningRules
from models.learning.examples import TrainingExample
from models.learning.tuning import candidates_of

NAME = "faults"
EXAMPLES = [
    TrainingExample(
        example_id=f"e{number}",
        # Users come again.
        user=f"u{number % 50}",
        messages=({"role": "user", "content": f"question {number % 11}"},),
        correction=f"the river carries answer {number % 13}",
    )
    for number in range(400)
]
RULES = TuningRules(
    NAME, tuple(candidates_of([0.05, 0.1, 0.4], [2], [1.0], [2, 4])), users=4, epsilon=8.0
)


def settings_of(folder: Path) -> LearnSettings:
    """Private: the candidates are judged by public questions."""
    return LearnSettings(
        mechanism="correlated",
        folder=folder,
        gate_set=folder / "gate.jsonl",
        device="cpu",
        dtype="float32",
    )


def live(model: str, folder: Path, boundary: Reaper) -> None:
    """One life: from what is stored to the end of the tuning, or to the reaper."""
    fsync = os.fsync

    def reaped_fsync(descriptor: int) -> None:
        boundary()
        fsync(descriptor)
        boundary()

    os.fsync = reaped_fsync
    contest = Contest(settings_of(folder), model, RULES)
    contest._store._database.set_trace_callback(boundary)
    contest.resume()
    begin = contest.offsets.get("examples/0", 0)
    for offset in range(begin, len(EXAMPLES)):
        contest.add(EXAMPLES[offset], "examples/0", offset + 1)
    assert contest.done
    contest.close()


def lives(model: str, folder: Path, kills: int) -> int:
    """Lives until `kills` died and one reached the end; returns how many died."""
    died = 0
    while True:
        boundary = Reaper(died % 37 if died < kills else None)
        child = os.fork()
        if child == 0:
            try:
                live(model, folder, boundary)
                os._exit(0)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            if os.WEXITSTATUS(status):
                raise SystemExit(1)
            return died
        died += 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(lives(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
