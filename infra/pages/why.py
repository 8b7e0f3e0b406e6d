"""Why an answer is what it is, as far as its own record tells."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.events import Choice, FoundPassage, Generation


def reasons(generation: Generation) -> list[str]:
    """A line for each passage, one for the version, one for how its options were chosen."""
    passages = generation.passages
    lines = [_passage(number, passages) for number in range(len(passages))]
    if not passages:
        lines = ["No passages were found, or none were asked for."]
    return [*lines, _version(generation), _options(generation.choice)]


def _passage(number: int, passages: Sequence[FoundPassage]) -> str:
    found, count = passages[number], len(passages)
    why = []
    if found.cosine is not None:
        rank = _rank(found.cosine, [one.cosine for one in passages])
        why.append(f"meaning {found.cosine:.2f} ({rank} of {count})")
    if found.bm25:
        rank = _rank(found.bm25, [one.bm25 for one in passages])
        why.append(f"shared words {found.bm25:.1f} ({rank} of {count})")
    elif found.bm25 is not None:
        why.append("shared words none")
    return f"[{number + 1}] score {found.score:.2f}: {', '.join(why) or 'no parts are known'}"


def _rank(score: float, scores: Sequence[float | None]) -> str:
    better = sum(other is not None and other > score for other in scores)
    return f"no. {better + 1}"


def _version(generation: Generation) -> str:
    took = generation.usage
    return (
        f"{generation.model}, version {generation.model_version}, read {took.prompt_tokens} tokens "
        f"and wrote {took.completion_tokens}"
    )


def _options(choice: Choice | None) -> str:
    if choice is None:
        return "Options as they were asked for: no serving variants are on trial for it."
    return (
        f"Serving variant {choice.variant}, drawn with a chance of {choice.propensity:.0%} by "
        f"what {choice.policy_version} rewards taught"
    )
