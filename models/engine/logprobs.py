"""Log probabilities as a reader wants them: with texts instead of ids."""

from __future__ import annotations

from typing import Final

from models.engine.grammar import Vocabulary
from models.engine.protocol import TokenLogprob, TopLogprob
from models.engine.sampling import Chosen

# JSON has no -inf; OpenAI writes this number.
LOGPROB_MIN: Final = -9999.0


def token_logprob(chosen: Chosen, vocabulary: Vocabulary) -> TokenLogprob:
    """What is told of a token that was chosen with its log probability."""
    assert chosen.logprob is not None
    made = _top(chosen.token, chosen.logprob, vocabulary)
    top = tuple(_top(token, logprob, vocabulary) for token, logprob in chosen.top)
    return TokenLogprob(made.token, made.logprob, made.raw, top)


def _top(token: int, logprob: float, vocabulary: Vocabulary) -> TopLogprob:
    raw = vocabulary.texts[token]
    return TopLogprob(raw.decode(errors="replace"), max(logprob, LOGPROB_MIN), raw)
