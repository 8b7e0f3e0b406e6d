"""What a model with an adapter answers and how likely it finds the right answers."""

from __future__ import annotations

from collections.abc import Sequence

from infra.evaluation.text_scores import bleu, text_scores
from models.engine.load import Loaded
from models.learning.e2e import Described
from models.learning.examples import Cohort, TrainingExample
from models.learning.learner import Learner
from models.learning.quality import greedy_answers, mean_loss
from models.privacy.noise import Tensors


class Answerer:
    """Scores of adapters of one learner's shape."""

    def __init__(self, loaded: Loaded, learner: Learner) -> None:
        self._loaded = loaded
        self._learner = learner

    def scores(self, adapter: Tensors, test: Sequence[Described]) -> dict[str, float]:
        """`loss`, `bleu` and `rouge_l` on test questions, the latter against all references."""
        answers = self._answers(adapter, [found.question for found in test])
        return {"loss": self.test_loss(adapter, test)} | text_scores(
            answers, [found.references for found in test]
        )

    def test_loss(self, adapter: Tensors, test: Sequence[Described]) -> float:
        """By token, over the first reference of each question."""
        examples = [
            TrainingExample(
                example_id="",
                user="",
                messages=({"role": "user", "content": found.question},),
                correction=found.references[0],
            )
            for found in test
        ]
        answers = [self._learner.encode(example).answer for example in examples]
        return round(mean_loss(self._learner.model, adapter, answers), 4)

    def cohort_bleu(self, adapter: Tensors, cohort: Cohort) -> float:
        """BLEU of answers to what a cohort corrected, against its corrections."""
        examples = [example for found in cohort.examples.values() for example in found]
        answers = self._answers(adapter, [str(e.messages[-1]["content"]) for e in examples])
        return bleu(answers, [(example.correction or "",) for example in examples])

    def _answers(self, adapter: Tensors, questions: Sequence[str]) -> list[str]:
        return greedy_answers(
            self._learner.model,
            adapter,
            self._loaded.tokenizer,
            self._learner.end_token,
            [({"role": "user", "content": question},) for question in questions],
        )
