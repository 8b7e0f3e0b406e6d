"""The gate: a candidate goes live only if it is not worse than what is live (law 6).

Both answer the same public questions, and the mean loss by token of their answers decides. There is
no test of significance, which would let through whatever may be chance: of many small steps, each
forgiven, the sum would be a fall. On one fixed set of questions without a tolerance the loss of
what is live never rises. The price is that a better candidate may wait for the next round.

A refused candidate stays where learning goes on from. Its users' privacy is spent, so to throw the
step away would waste it; and correlated noise takes back in later rounds what it added in this one,
which only works where the sum of all steps is kept. The next candidate then has to pass.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch

from models.engine.protocol import Message
from models.learning.examples import TrainingExample
from models.learning.learner import Learner
from models.learning.lora import LoraShape
from models.learning.quality import answer_losses
from models.learning.rounds import Judgement
from models.learning.user_gradients import AdaptedModel
from models.privacy.noise import Tensors
from schemas.errors import DataInvalid


class GateQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question that may be published, and a good answer to it; one JSON object a line."""

    messages: tuple[Message, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class LiveVersion:
    """What a candidate is compared with; without tensors it is the base model.

    `origin` is that of its update: online, federated, rollback and so on.
    """

    model_version: str
    adapter: Tensors
    shape: LoraShape
    origin: str = "base"


def read_questions(path: Path) -> list[GateQuestion]:
    """Raises DataInvalid, with the line, for a file without questions."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataInvalid(
            f"The gate's questions cannot be read: {error}.",
            "Name a JSONL file with HEADWATER_LEARN_GATE_SET.",
        ) from error
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(msgspec.json.decode(line, type=GateQuestion))
        except msgspec.DecodeError as error:
            raise DataInvalid(
                f"Line {number} of {path} is no question of the gate: {error}.",
                'Write {"messages": [{"role": "user", "content": "…"}], "answer": "…"}.',
            ) from error
    if not found:
        raise DataInvalid(f"{path} holds no question.", "Write at least one.")
    return found


class Gate:
    """Judges candidates of one learner by questions with known answers."""

    def __init__(
        self, learner: Learner, questions: list[GateQuestion], tolerance: float = 0.0
    ) -> None:
        """`tolerance` is how much worse a candidate may be, in nats by token."""
        self._learner = learner
        self._tolerance = tolerance
        self._answers = [
            learner.encode(
                TrainingExample(
                    example_id="", user="", messages=question.messages, correction=question.answer
                )
            ).answer
            for question in questions
        ]
        # The live version changes at most once a round.
        self._live: tuple[str, list[float]] = ("", [])
        # The last candidate and its losses: what is live next is most often this one.
        self._candidate: tuple[Tensors, list[float]] = ({}, [])

    def judge(self, candidate: Tensors, live: LiveVersion) -> Judgement:
        """Compares a candidate of the learner with what is live."""
        if self._live[0] != live.model_version:
            self._live = live.model_version, self._losses_of(live)
        found = answer_losses(self._learner.model, candidate, self._answers)
        # A copy, for the learner may go on in place.
        self._candidate = {name: tensor.clone() for name, tensor in candidate.items()}, found
        differences = [new - old for new, old in zip(found, self._live[1], strict=True)]
        worse_by = statistics.fmean(differences)
        error = statistics.stdev(differences) / math.sqrt(len(found)) if len(found) > 1 else 0.0
        return Judgement(
            released=worse_by <= self._tolerance,
            evaluation={
                "gate_loss": statistics.fmean(found),
                "gate_loss_live": statistics.fmean(self._live[1]),
                "gate_difference_std_error": error,
                "gate_questions": float(len(found)),
            },
        )

    def _losses_of(self, live: LiveVersion) -> list[float]:
        judged, losses = self._candidate
        if live.shape == self._learner.shape and _equal(judged, live.adapter):
            return losses
        # It may have another shape than the learner's: from federation, say.
        model = AdaptedModel(self._learner.model.model, live.shape)
        try:
            return answer_losses(model, live.adapter, self._answers)
        finally:
            model.close()


def _equal(some: Tensors, others: Tensors) -> bool:
    """Whether both have the same tensors; none are no adapter at all."""
    return (
        bool(some)
        and some.keys() == others.keys()
        and all(
            torch.equal(tensor, others[name].to(tensor.device)) for name, tensor in some.items()
        )
    )
