"""Answers against all the sentences that people wrote for a question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from schemas.errors import SettingsInvalid

_REMEDY = "Run `pip install sacrebleu rouge-score`."


def bleu(answers: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """sacrebleu's, 0 to 100: 13a tokens, lower case, any number of references each.

    Raises SettingsInvalid where the package for it is not installed.
    """
    try:
        import sacrebleu
    except ImportError as error:
        raise SettingsInvalid("BLEU needs sacrebleu, which is not installed.", _REMEDY) from error
    # sacrebleu takes a missing reference as None, which its own annotations leave out.
    most = max(len(found) for found in references)
    columns: list[Any] = [
        [found[i] if i < len(found) else None for found in references] for i in range(most)
    ]
    return round(sacrebleu.corpus_bleu(list(answers), columns, lowercase=True).score, 2)


def text_scores(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """BLEU and ROUGE-L (F, best reference), both 0 to 100. Raises SettingsInvalid likewise."""
    try:
        from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]
    except ImportError as error:
        raise SettingsInvalid(
            "ROUGE-L needs rouge-score, which is not installed.", _REMEDY
        ) from error
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    rouge = [
        max(scorer.score(reference, answer)["rougeL"].fmeasure for reference in found)
        for answer, found in zip(answers, references, strict=True)
    ]
    return {
        "bleu": bleu(answers, references),
        "rouge_l": round(100.0 * sum(rouge) / len(rouge), 2),
    }


def word_f1(answer: str, truth: str) -> float:
    """SQuAD's F1 over words, without punctuation and articles; in [0, 1]."""
    said, meant = (Counter(_words(text)) for text in (answer, truth))
    common = sum((said & meant).values())
    if common == 0:
        return 0.0
    precision, recall = common / sum(said.values()), common / sum(meant.values())
    return 2 * precision * recall / (precision + recall)


def _words(text: str) -> list[str]:
    kept = "".join(c if c.isalnum() else " " for c in text.lower())
    return [word for word in kept.split() if word not in ("a", "an", "the")]
