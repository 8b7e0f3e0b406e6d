"""How good weights are on questions that no device learned from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from infra.evaluation.text_scores import word_f1
from models.engine.load import Loaded
from models.federation.layout import Arrays, Flat, unflatten
from models.learning.examples import TrainingExample
from models.learning.learner import encode_example, end_token_of
from models.learning.lora import LoraShape
from models.learning.quality import greedy_answers, mean_loss
from models.learning.user_gradients import AdaptedModel

TOKENS_MAX = 512
_ANSWER_TOKENS_MAX = 16


class Quality:
    """Scores on one model; `like` has the adapter's names and shapes."""

    def __init__(self, loaded: Loaded, shape: LoraShape, like: Arrays) -> None:
        self._loaded = loaded
        self._shape = shape
        self._like = like
        self._end_token = end_token_of(loaded)

    def loss(self, flat: Flat, held_out: Sequence[TrainingExample]) -> float:
        """By token."""
        answers = [
            encode_example(self._loaded.tokenizer, self._end_token, one, TOKENS_MAX).answer
            for one in held_out
        ]
        model = AdaptedModel(self._loaded.model, self._shape)
        try:
            return mean_loss(model, self._tensors(flat), answers)
        finally:
            model.close()

    def f1(self, flat: Flat, held_out: Sequence[TrainingExample]) -> float:
        """Of the words of greedy answers, in percent."""
        model = AdaptedModel(self._loaded.model, self._shape)
        try:
            answers = greedy_answers(
                model,
                self._tensors(flat),
                self._loaded.tokenizer,
                self._end_token,
                [one.messages for one in held_out],
                _ANSWER_TOKENS_MAX,
            )
        finally:
            model.close()
        scores = [
            word_f1(answer, one.correction or "")
            for answer, one in zip(answers, held_out, strict=True)
        ]
        return 100.0 * float(np.mean(scores))

    def _tensors(self, flat: Flat) -> dict[str, torch.Tensor]:
        device = self._loaded.model.device
        parts = unflatten(flat, self._like)
        return {name: torch.tensor(part, device=device) for name, part in parts.items()}
