"""Answers against all the sentences that people wrote for a question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from schemas.errors import SettingsInvalid


def text_scores(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """BLEU (sacrebleu, 13a tokens, lower case) and ROUGE-L (F, best reference), both 0 to 100.

    Raises SettingsInvalid where the packages for it are not installed.
    """
    try:
        import sacrebleu
        from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]
    except ImportError as error:
        raise SettingsInvalid(
            f"Scores of texts need a package that is not installed: {error.name}.",
            "Run `pip install sacrebleu rouge-score`.",
        ) from error
    # sacrebleu takes a missing reference as None, which its own annotations leave out.
    most = max(len(found) for found in references)
    columns: list[Any] = [
        [found[i] if i < len(found) else None for found in references] for i in range(most)
    ]
    bleu = sacrebleu.corpus_bleu(list(answers), columns, lowercase=True).score
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    rouge = [
        max(scorer.score(reference, answer)["rougeL"].fmeasure for reference in found)
        for answer, found in zip(answers, references, strict=True)
    ]
    return {"bleu": round(bleu, 2), "rouge_l": round(100.0 * sum(rouge) / len(rouge), 2)}
