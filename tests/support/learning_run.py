"""A learner that can be killed at any boundary of its work; run as a script by the fault tests.

    python learning_run.py MODEL FOLDER KILLS

The script loads the model once and forks a child for each life, so that a hundred deaths take
seconds. Each life resumes from FOLDER, and is killed (SIGKILL) at a boundary that moves on by one
from life to life: every fsync, every SQL statement, and between the steps of a round.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import torch
from mortal import Reaper, lives, reap_fsyncs

from models.engine.load import Loaded, load
from models.learning.examples import CohortAssembler, TrainingExample
from models.learning.learner import Learner, LearnerSettings
from models.learning.lora import LoraShape, new_adapter
from models.learning.optimizers import OptimizerSettings
from models.learning.rounds import Judgement, Rounds
from models.privacy.adaptive import AdaptiveNorm
from models.privacy.ledger import Opening
from models.privacy.ledger_store import LedgerStore
from models.privacy.mechanism import open_mechanism
from models.privacy.noise import shapes_of
from models.privacy.plan import make_plan
from models.privacy.randomness import NoiseKey

ADAPTER = "tone"
ROUNDS = 80
KEY = NoiseKey(bytes(range(32)))
PLAN = make_plan(
    "correlated",
    epsilon=8.0,
    delta=1e-6,
    rounds_max=ROUNDS,
    participations_max=6,
    separation_min=3,
    count_share=0.1,
)
SETTINGS = LearnerSettings(
    LoraShape(rank=2, alpha=4.0),
    OptimizerSettings("sgd", 0.1),
    cohort_size=3,
    adaptive=AdaptiveNorm(),
)
# Users come again, some too soon and some too often.
EXAMPLES = [
    TrainingExample(
        example_id=f"e{number}",
        user=f"u{(number * number + number // 7) % 61}",
        messages=({"role": "user", "content": f"question {number % 11}"},),
        correction=f"the river carries answer {number % 13}",
    )
    for number in range(1200)
]


def live(loaded: Loaded, folder: Path, boundary: Reaper) -> None:
    """One life: from what is stored to the end of the plan, or to the reaper."""
    reap_fsyncs(boundary)
    store = LedgerStore(folder / "ledger.db")
    store._database.set_trace_callback(boundary)
    adapter = new_adapter(loaded.model, SETTINGS.shape)
    shapes = shapes_of(adapter)
    learner = Learner(loaded, SETTINGS, open_mechanism(PLAN, shapes, KEY), adapter)
    opening = Opening(
        adapter=ADAPTER,
        plan=PLAN,
        key_commitment=KEY.commitment,
        artifact_sha256="0" * 64,
        cohort_size=SETTINGS.cohort_size,
    )
    rounds = Rounds(store, opening, learner, folder / "artifacts", "tiny")
    start = rounds.offsets.get("examples/0", 0)
    assembler = CohortAssembler(SETTINGS.cohort_size, 2, rounds.participation, rounds.number)
    publish(store, folder, boundary)
    for offset in range(start, len(EXAMPLES)):
        cohort = assembler.add(EXAMPLES[offset])
        if cohort is not None and rounds.number < ROUNDS:
            boundary()
            given = Judgement(released=rounds.number % 3 != 1, evaluation={})
            rounds.finish(cohort, {"examples/0": offset + 1}, lambda _, given=given: given)
            publish(store, folder, boundary)


def publish(store: LedgerStore, folder: Path, boundary: Reaper) -> None:
    """Step 4: a line in a file stands for the topic."""
    for release in store.unpublished(ADAPTER):
        line = {"version": release.record.model_version, "digest": release.digest}
        with (folder / "published").open("a") as file:
            file.write(json.dumps(line) + "\n")
        boundary()
        store.mark_published(ADAPTER, release.record.model_version)
        boundary()


if __name__ == "__main__":
    torch.set_num_threads(1)
    tiny = load(sys.argv[1], Path(sys.argv[1]), "cpu", "float32")
    print(lives(partial(live, tiny, Path(sys.argv[2])), int(sys.argv[3]), stride=41))
