"""Replays corrections as a stream through a learner: what is learned, at what cost of privacy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from infra.evaluation.text_scores import text_scores
from models.engine.chat import chat_end_token
from models.engine.load import Loaded
from models.learning.e2e import Described
from models.learning.examples import Cohort, CohortAssembler, TrainingExample, assemble
from models.learning.learner import Learner, LearnerSettings
from models.learning.lora import LoraShape, new_adapter
from models.learning.optimizers import OptimizerSettings
from models.learning.quality import greedy_answers, mean_loss
from models.privacy.adaptive import AdaptiveNorm
from models.privacy.ledger import declared_epsilon
from models.privacy.mechanism import open_mechanism
from models.privacy.participation import Participation
from models.privacy.plan import Plan, make_plan
from models.privacy.randomness import NoiseKey
from schemas.errors import SettingsInvalid

Points = list[dict[str, float]]
# "opacus" is its DP-SGD with the noise of "gaussian".
Mode = Literal["none", "gaussian", "correlated", "opacus"]


# Which optimizer suits which mechanism: see docs/LOG.md.
OPTIMIZERS: dict[Mode, OptimizerSettings] = {
    "none": OptimizerSettings("adam", 2e-3),
    "gaussian": OptimizerSettings("sgd", 0.08),
    "correlated": OptimizerSettings("sgd", 0.08),
    "opacus": OptimizerSettings("sgd", 0.08),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to learn. `evaluations` times on the way the test loss is taken."""

    mode: Mode
    optimizer: OptimizerSettings
    epsilon: float = 8.0
    delta: float = 1e-6
    cohort_size: int = 64
    rank: int = 4
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    max_grad_norm: float = 1.0
    count_share: float = 0.0
    participations_max: int = 1
    separation_min: int = 1
    examples_per_user_max: int = 8
    evaluations: int = 4


def replay(
    loaded: Loaded,
    corrections: Sequence[TrainingExample],
    test: Sequence[Described],
    setting: Setting,
    key: NoiseKey | None = None,
) -> dict[str, Any]:
    """Losses before each step (prequential), test loss on the way, and test scores at the end.

    The static model's scores stand beside: `static`. Noise differs from run to run without a `key`.
    """
    plan = _plan(setting, len(corrections))
    learner = _learner(loaded, setting, plan, key)
    assembler = CohortAssembler(
        setting.cohort_size, setting.examples_per_user_max, Participation(plan), 0
    )
    cohorts = assemble(corrections, assembler)[: plan.rounds_max]
    begun = time.perf_counter()
    try:
        static = _scores(loaded, learner, test)
        curve: Points = [{"events": 0, "test_loss": static["loss"]}]
        prequential: Points = []
        if setting.mode == "opacus":
            _learn_with_opacus(learner, cohorts, setting)
        else:
            prequential, on_the_way = _learn(learner, cohorts, test, setting.evaluations)
            curve += on_the_way
        final = _scores(loaded, learner, test)
    finally:
        learner.close()
    events = sum(len(cohort.example_ids) for cohort in cohorts)
    curve.append({"events": events, "test_loss": final["loss"]})
    return {
        "setting": asdict(setting),
        "rounds": len(cohorts),
        "events": events,
        "epsilon": declared_epsilon(plan, len(cohorts)),
        "noise_multiplier": round(plan.noise_multiplier, 4),
        "seconds": round(time.perf_counter() - begun, 1),
        "static": static,
        "final": final,
        "test_curve": curve,
        "prequential": prequential,
    }


def _learn(
    learner: Learner, cohorts: Sequence[Cohort], test: Sequence[Described], evaluations: int
) -> tuple[Points, Points]:
    """Losses before each step, and test losses on the way."""
    stops = {len(cohorts) * i // evaluations for i in range(1, evaluations)}
    prequential: Points = []
    curve: Points = []
    events = 0
    for cohort in cohorts:
        losses = [x for found in learner.step(cohort).losses for x in found]
        events += len(losses)
        prequential.append({"events": events, "loss": round(statistics.fmean(losses), 4)})
        if cohort.number + 1 in stops:
            curve.append({"events": events, "test_loss": _test_loss(learner, test)})
    return prequential, curve


def _learn_with_opacus(learner: Learner, cohorts: Sequence[Cohort], setting: Setting) -> None:
    # Imported late: Opacus takes seconds, and only this mode needs it.
    from infra.evaluation.opacus_baseline import opacus_adapter

    if setting.examples_per_user_max > 1 or setting.count_share:
        raise SettingsInvalid(
            "Opacus clips each example by itself, so a user may give one a cohort only.",
            "Set examples_per_user_max to 1 and count_share to 0.",
        )
    encoded = [
        [learner.encode(found[0]).answer for found in cohort.examples.values()]
        for cohort in cohorts
    ]
    learner.adapter = opacus_adapter(
        learner,
        encoded,
        setting.optimizer,
        learner.mechanism.plan.noise_multiplier,
        setting.max_grad_norm,
    )


def _plan(setting: Setting, examples: int) -> Plan:
    """As many rounds as there may be cohorts in a stream of so many examples."""
    return make_plan(
        "gaussian" if setting.mode == "opacus" else setting.mode,
        epsilon=setting.epsilon,
        delta=setting.delta,
        rounds_max=max(1, examples // setting.cohort_size),
        participations_max=setting.participations_max,
        separation_min=setting.separation_min,
        count_share=setting.count_share,
    )


def _learner(loaded: Loaded, setting: Setting, plan: Plan, key: NoiseKey | None) -> Learner:
    shape = LoraShape(setting.rank, 2.0 * setting.rank, setting.targets)
    adapter = new_adapter(loaded.model, shape)
    shapes = {name: tuple(tensor.shape) for name, tensor in adapter.items()}
    settings = LearnerSettings(
        shape,
        setting.optimizer,
        setting.cohort_size,
        setting.max_grad_norm,
        AdaptiveNorm() if setting.count_share else None,
    )
    return Learner(loaded, settings, open_mechanism(plan, shapes, key), adapter)


def _test_loss(learner: Learner, test: Sequence[Described]) -> float:
    """Over the first reference of each question."""
    answers = [
        learner.encode(
            TrainingExample(
                example_id="",
                user="",
                messages=({"role": "user", "content": found.question},),
                correction=found.references[0],
            )
        ).answer
        for found in test
    ]
    return round(mean_loss(learner.model, learner.adapter, answers), 4)


def _scores(loaded: Loaded, learner: Learner, test: Sequence[Described]) -> dict[str, float]:
    end_token = chat_end_token(loaded.tokenizer)
    answers = greedy_answers(
        learner.model,
        learner.adapter,
        loaded.tokenizer,
        loaded.tokenizer.eos_token_id if end_token is None else end_token,
        [({"role": "user", "content": found.question},) for found in test],
    )
    scores = text_scores(answers, [found.references for found in test])
    return {"loss": _test_loss(learner, test)} | scores
