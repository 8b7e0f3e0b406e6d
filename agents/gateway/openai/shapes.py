"""OpenAI's answers, as the two APIs name their parts. `headwater` beside them is ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import msgspec

from schemas.events import FinishReason, Generation, TokenLogprob, TopLogprob

_FINISH: Final = {"stop": "stop", "length": "length"}


@dataclass(frozen=True, slots=True)
class Shape:
    """One of the two APIs, for one prompt of a request; its choices are numbered from `first`."""

    chat: bool
    completion_id: str
    created_s: int
    model: str
    first: int = 0

    def role(self, choice: int) -> dict[str, Any]:
        """How a streamed choice of a chat begins."""
        return self._chunk([self._piece(choice, {"role": "assistant", "content": ""})])

    def delta(
        self, choice: int, text: str, logprobs: Sequence[TokenLogprob], version: str
    ) -> dict[str, Any]:
        """New text of a choice."""
        told = self._logprobs(logprobs) if logprobs else None
        if self.chat:
            return self._chunk([self._piece(choice, {"content": text}, None, told)], version)
        return self._chunk([self._text(choice, text, None, told)], version)

    def finish(self, choice: int, generation: Generation) -> dict[str, Any]:
        """How a streamed choice ends; the first choice's tells the passages."""
        _, reason, _ = answers_of(generation)[choice]
        told = _FINISH.get(reason, reason)
        piece = self._piece(choice, {}, told) if self.chat else self._text(choice, "", told)
        chunk = self._chunk([piece], generation.model_version)
        return chunk | ({} if choice else {"headwater": found_in(generation)})

    def usage(self, generations: Sequence[Generation]) -> dict[str, Any]:
        """The event before the last: tokens used for all prompts, and no choices."""
        return self._chunk([], generations[0].model_version) | {"usage": usage_of(generations)}

    def whole(self, generations: Sequence[Generation]) -> dict[str, Any]:
        """The answer to a request without a stream: one generation for each of its prompts.

        Of several prompts, each tells what it rests on in its first choice.
        """
        choices: list[dict[str, Any]] = []
        for generation in generations:
            told = {"headwater": found_in(generation)} if len(generations) > 1 else {}
            for text, reason, logprobs in answers_of(generation):
                choices.append(self._whole_choice(len(choices), text, reason, logprobs) | told)
                told = {}
        first = generations[0]
        return {
            "id": self.completion_id,
            "object": "chat.completion" if self.chat else "text_completion",
            "created": self.created_s,
            "model": self.model,
            "system_fingerprint": first.model_version,
            "choices": choices,
            "usage": usage_of(generations),
            "headwater": found_in(first),
        }

    def _whole_choice(
        self, number: int, text: str, reason: str, logprobs: list[TokenLogprob]
    ) -> dict[str, Any]:
        told = self._logprobs(logprobs) if logprobs else None
        rest = {"index": number, "finish_reason": _FINISH.get(reason, reason), "logprobs": told}
        if self.chat:
            return rest | {"message": {"role": "assistant", "content": text, "refusal": None}}
        return rest | {"text": text}

    def _chunk(self, choices: list[dict[str, Any]], version: str | None = None) -> dict[str, Any]:
        return {
            "id": self.completion_id,
            "object": "chat.completion.chunk" if self.chat else "text_completion",
            "created": self.created_s,
            "model": self.model,
            "system_fingerprint": version,
            "choices": choices,
        }

    def _piece(
        self,
        choice: int,
        delta: dict[str, Any],
        reason: str | None = None,
        logprobs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        index = self.first + choice
        return {"index": index, "delta": delta, "finish_reason": reason, "logprobs": logprobs}

    def _text(
        self, choice: int, text: str, reason: str | None, logprobs: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        index = self.first + choice
        return {"index": index, "text": text, "finish_reason": reason, "logprobs": logprobs}

    def _logprobs(self, told: Sequence[TokenLogprob]) -> dict[str, Any]:
        if self.chat:
            return {"content": [_entry(one) | {"top_logprobs": _tops(one)} for one in told]}
        return _older_logprobs(told)


def answers_of(generation: Generation) -> list[tuple[str, FinishReason, list[TokenLogprob]]]:
    """Text, reason to end and log probabilities of each choice."""
    first = (generation.text, generation.finish_reason, generation.logprobs)
    others = [(one.text, one.finish_reason, one.logprobs) for one in generation.alternatives]
    return [first, *others]


def usage_of(generations: Sequence[Generation]) -> dict[str, int]:
    """Tokens, counted as OpenAI does."""
    read = sum(generation.usage.prompt_tokens for generation in generations)
    written = sum(generation.usage.completion_tokens for generation in generations)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
    }


def found_in(generation: Generation) -> dict[str, Any]:
    """What only this river tells: the prompt's id for feedback, and what the answer rests on."""
    return {
        "prompt_id": generation.prompt_id,
        "model_version": generation.model_version,
        "passages": msgspec.to_builtins(generation.passages),
        "cited": generation.cited,
    }


def _entry(told: TokenLogprob | TopLogprob) -> dict[str, Any]:
    raw = told.token.encode() if told.raw is None else told.raw
    return {"token": told.token, "logprob": told.logprob, "bytes": list(raw)}


def _tops(told: TokenLogprob) -> list[dict[str, Any]]:
    return [_entry(top) for top in told.top]


def _older_logprobs(told: Sequence[TokenLogprob]) -> dict[str, Any]:
    """`text_offset` counts from the first of these tokens."""
    ends = list(accumulate(len(one.token) for one in told))
    return {
        "tokens": [one.token for one in told],
        "token_logprobs": [one.logprob for one in told],
        "top_logprobs": [{top.token: top.logprob for top in one.top} for one in told],
        "text_offset": [0, *ends[:-1]],
    }
