"""Between the sampling options and log probabilities of events and those of the engine."""

from __future__ import annotations

import json
from dataclasses import replace

from models.engine import protocol
from models.engine.protocol import GenerationRequest, SamplingParams
from schemas import ids, limits
from schemas.events import Sampling, TokenLogprob, TopLogprob


def sampling_params(sampling: Sampling, prompt_id: str) -> SamplingParams:
    """The engine's own form; without a seed the prompt's id gives one, so that replays agree."""
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=ids.seed(prompt_id) if sampling.seed is None else sampling.seed,
        stop=tuple(sampling.stop),
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        frequency_penalty=sampling.frequency_penalty,
        presence_penalty=sampling.presence_penalty,
        logprobs=sampling.logprobs,
        top_logprobs=sampling.top_logprobs,
        json_object=sampling.json_object,
        # In the order of the prompt: the answer's properties come in this order.
        json_schema=None if sampling.json_schema is None else json.dumps(sampling.json_schema),
    )


def request_of_choice(request: GenerationRequest, number: int) -> GenerationRequest:
    """The request for one of several answers: the first draws with the seed as it is."""
    if number == 0:
        return request
    seed = ids.seed(f"{request.sampling.seed}/{number}")
    return replace(
        request,
        request_id=f"{request.request_id}/{number}",
        sampling=replace(request.sampling, seed=seed),
    )


def logprob_event(told: protocol.TokenLogprob) -> TokenLogprob:
    """A token's log probabilities as records hold them."""
    token, logprob, raw = _token(told)
    return TokenLogprob(token, logprob, raw, [TopLogprob(*_token(top)) for top in told.top])


def _token(
    told: protocol.TokenLogprob | protocol.TopLogprob,
) -> tuple[str, float, bytes | None]:
    whole = told.token.encode() == told.raw
    # Six decimals: a record holds thousands of these.
    token = told.token[: limits.TOKEN_CHARS_MAX]
    return token, round(told.logprob, 6), None if whole else told.raw
