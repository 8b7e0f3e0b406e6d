"""Replays corrections as a stream through a learner: what is learned, at what cost of privacy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from infra.evaluation.answers import Answerer
from models.engine.load import Loaded
from models.learning.e2e import Described
from models.learning.examples import Cohort, CohortAssembler, TrainingExample, assemble
from models.learning.learner import Learner, LearnerSettings
from models.learning.lora import LoraShape, Trained, new_adapter, trained_of
from models.learning.optimizers import WITHOUT_NOISE, OptimizerSettings, suiting, trained_in
from models.privacy.adaptive import AdaptiveNorm
from models.privacy.ledger import declared_epsilon
from models.privacy.mechanism import open_mechanism
from models.privacy.noise import Tensors, shapes_of
from models.privacy.participation import Participation
from models.privacy.plan import MechanismName, Plan, make_plan
from models.privacy.randomness import NoiseKey
from schemas.errors import SettingsInvalid

Points = list[dict[str, float]]
Report = Callable[[int, int], None]
# "opacus" is its DP-SGD with the noise of "gaussian".
Mode = Literal["none", "gaussian", "correlated", "opacus"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to learn.

    `evaluations` times, at equal distances, the last time after the last cohort, the test loss is
    taken; but for that time the next cohort's questions are answered for a BLEU score before it is
    learned from.
    """

    mode: Mode
    optimizer: OptimizerSettings
    epsilon: float = 8.0
    delta: float = 1e-6
    cohort_size: int = 64
    rank: int = 4
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    trained: Trained = "both"
    max_grad_norm: float = 0.5
    count_share: float = 0.0
    participations_max: int = 1
    separation_min: int = 1
    examples_per_user_max: int = 8
    evaluations: int = 4

    @classmethod
    def of(cls, mode: Mode, epsilon: float, cohort_size: int = 64) -> Setting:
        """With optimizer and part of the adapter that suit the mode; Opacus has what suits ours
        with the same noise."""
        mechanism: MechanismName = "gaussian" if mode == "opacus" else mode
        optimizer = suiting(mechanism, epsilon, cohort_size)
        trained = trained_in(mechanism, epsilon)
        return cls(mode, optimizer, epsilon, cohort_size=cohort_size, trained=trained)

    def tuned(
        self,
        learning_rate: float | None,
        max_grad_norm: float | None,
        trained: Trained | None,
    ) -> Setting:
        """With another learning rate, norm or part of the adapter, where they are given."""
        rate = self.optimizer.learning_rate if learning_rate is None else learning_rate
        return replace(
            self,
            optimizer=replace(self.optimizer, learning_rate=rate),
            max_grad_norm=self.max_grad_norm if max_grad_norm is None else max_grad_norm,
            trained=trained or self.trained,
        )

    def plan(self, rounds_max: int) -> Plan:
        return make_plan(
            "gaussian" if self.mode == "opacus" else self.mode,
            epsilon=self.epsilon,
            delta=self.delta,
            rounds_max=rounds_max,
            participations_max=self.participations_max,
            separation_min=self.separation_min,
            count_share=self.count_share,
        )


def replay(
    loaded: Loaded,
    corrections: Sequence[TrainingExample],
    test: Sequence[Described],
    setting: Setting,
    static: dict[str, float],
    key: NoiseKey | None = None,
    report: Report = lambda done, total: None,
) -> dict[str, Any]:
    """Losses and BLEU before each step (prequential), test loss on the way, test scores at the end.

    The plan has as many rounds as the stream has cohorts. `static` are the scores before the first.
    Noise differs from run to run without a `key`. `report` is told cohorts done and all. Raises
    SettingsInvalid where the corrections do not fill one cohort.
    """
    cohorts = cohorts_of(corrections, setting)
    plan = setting.plan(len(cohorts))
    learner = _learner(loaded, setting, plan, key)
    answerer = Answerer(loaded, learner)
    begun = time.perf_counter()
    try:
        steps = _steps(learner, cohorts, setting)
        with closing(steps):
            prequential, curve, final = _follow(
                steps, cohorts, test, answerer, setting.evaluations, report
            )
    finally:
        learner.close()
    return {
        "setting": asdict(setting),
        "rounds": len(cohorts),
        "events": prequential[-1]["events"],
        "epsilon": declared_epsilon(plan, len(cohorts)),
        "noise_multiplier": round(plan.noise_multiplier, 4),
        "test_questions": len(test),
        "seconds": round(time.perf_counter() - begun, 1),
        "final": final,
        "test_curve": [{"events": 0, "test_loss": static["loss"]}, *curve],
        "prequential": prequential,
    }


def rounds_of(corrections: Sequence[TrainingExample], setting: Setting) -> int:
    """How many cohorts a replay has. Raises what it would refuse, in less than a second."""
    rounds = len(cohorts_of(corrections, setting))
    setting.plan(rounds)
    return rounds


def static_scores(loaded: Loaded, test: Sequence[Described]) -> dict[str, float]:
    """The scores of the model before it learns anything."""
    setting = Setting("none", WITHOUT_NOISE)
    learner = _learner(loaded, setting, setting.plan(1), None)
    try:
        return Answerer(loaded, learner).scores({}, test)
    finally:
        learner.close()


def cohorts_of(corrections: Sequence[TrainingExample], setting: Setting) -> list[Cohort]:
    """By the rules of participation alone; the last, unfinished cohort is left out."""
    rules = setting.plan(max(1, len(corrections)))
    assembler = CohortAssembler(
        setting.cohort_size, setting.examples_per_user_max, Participation(rules), 0
    )
    cohorts = assemble(corrections, assembler)
    if not cohorts:
        raise SettingsInvalid(
            f"{len(corrections)} corrections do not fill a cohort of {setting.cohort_size} users.",
            "Raise --limit, or lower --cohort.",
        )
    return cohorts


def _follow(
    steps: Iterator[tuple[Tensors, list[float]]],
    cohorts: Sequence[Cohort],
    test: Sequence[Described],
    answerer: Answerer,
    evaluations: int,
    report: Report,
) -> tuple[Points, Points, dict[str, float]]:
    """Losses and BLEU before each step, test losses on the way, and the scores at the end."""
    stops = {len(cohorts) * i // evaluations for i in range(1, evaluations)}
    prequential: Points = []
    curve: Points = []
    events = 0
    adapter: Tensors = {}
    for cohort in cohorts:
        point: dict[str, float] = {}
        if cohort.number in stops:
            point["bleu"] = answerer.cohort_bleu(adapter, cohort)
            curve.append({"events": events, "test_loss": answerer.test_loss(adapter, test)})
        adapter, losses = next(steps)
        events += len(losses)
        point |= {"events": events, "loss": round(statistics.fmean(losses), 4)}
        prequential.append(point)
        report(cohort.number + 1, len(cohorts))
    final = answerer.scores(adapter, test)
    curve.append({"events": events, "test_loss": final["loss"]})
    return prequential, curve, final


def _steps(
    learner: Learner, cohorts: Sequence[Cohort], setting: Setting
) -> Generator[tuple[Tensors, list[float]]]:
    """After each cohort, the adapter to evaluate with, and the losses before the step."""
    if setting.mode == "opacus":
        yield from _opacus_steps(learner, cohorts, setting)
        return
    for cohort in cohorts:
        losses = [loss for found in learner.step(cohort).losses for loss in found]
        yield learner.adapter, losses


def _opacus_steps(
    learner: Learner, cohorts: Sequence[Cohort], setting: Setting
) -> Generator[tuple[Tensors, list[float]]]:
    # Imported late: Opacus takes seconds, and only this mode needs it.
    from infra.evaluation.opacus_baseline import opacus_steps

    if setting.examples_per_user_max > 1 or setting.count_share:
        raise SettingsInvalid(
            "Opacus clips each example by itself, so a user may give one a cohort only.",
            "Set examples_per_user_max to 1 and count_share to 0.",
        )
    encoded = [
        [learner.encode(found[0]).answer for found in cohort.examples.values()]
        for cohort in cohorts
    ]
    noise = learner.mechanism.plan.noise_multiplier
    steps = opacus_steps(learner, encoded, setting.optimizer, noise, setting.max_grad_norm)
    with closing(steps):
        for _, losses in steps:
            # The model itself holds the adapter then.
            yield {}, losses


def _learner(loaded: Loaded, setting: Setting, plan: Plan, key: NoiseKey | None) -> Learner:
    shape = LoraShape(setting.rank, 2.0 * setting.rank, setting.targets)
    adapter = new_adapter(loaded.model, shape)
    shapes = shapes_of(trained_of(adapter, setting.trained))
    settings = LearnerSettings(
        shape,
        setting.optimizer,
        setting.cohort_size,
        setting.max_grad_norm,
        AdaptiveNorm() if setting.count_share else None,
    )
    mechanism = open_mechanism(plan, shapes, key)
    return Learner(loaded, settings, mechanism, adapter, setting.trained)
