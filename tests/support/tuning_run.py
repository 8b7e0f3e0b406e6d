"""A tuning that can be killed at any boundary of its work; run as a script by the fault tests.

    python tuning_run.py MODEL FOLDER KILLS

Each life is forked, resumes from FOLDER, and is killed (SIGKILL) at a
boundary that moves on by one from life to life: every fsync and every SQL statement.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
from mortal import Reaper, lives, reap_fsyncs

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
    reap_fsyncs(boundary)
    contest = Contest(settings_of(folder), model, RULES)
    contest._store._database.set_trace_callback(boundary)
    contest.resume()
    begin = contest.offsets.get("examples/0", 0)
    for offset in range(begin, len(EXAMPLES)):
        contest.add(EXAMPLES[offset], "examples/0", offset + 1)
    assert contest.done
    contest.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(lives(partial(live, sys.argv[1], Path(sys.argv[2])), int(sys.argv[3]), stride=37))
