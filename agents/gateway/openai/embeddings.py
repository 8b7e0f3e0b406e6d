"""`/v1/embeddings`: the vectors that passages are found by."""

from __future__ import annotations

import base64

import numpy as np
from fastapi import APIRouter

from agents.gateway.access.caller import Called, Shared
from agents.gateway.errors import ApiError
from agents.gateway.openai.answers import Embedding, EmbeddingsAnswer, Usage
from agents.gateway.openai.requests import EmbeddingsRequest
from agents.gateway.openai.routes import REFUSED, check_model

router = APIRouter(prefix="/v1", tags=["OpenAI"])


@router.post("/embeddings", response_model=EmbeddingsAnswer, responses=REFUSED)
async def embeddings(body: EmbeddingsRequest, caller: Called, gateway: Shared) -> EmbeddingsAnswer:
    """Vectors of length 1, one for each text."""
    check_model(body.model, [gateway.vectors.name])
    with gateway.answering():
        vectors, tokens = await gateway.vectors.of(body.texts)
    if body.dimensions not in (None, vectors.shape[1]):
        message = f"{body.model} has vectors of {vectors.shape[1]} dimensions."
        raise ApiError(400, message, "invalid_request", "dimensions")
    as_base64 = body.encoding_format == "base64"
    data = [
        Embedding(index=number, embedding=_base64(vector) if as_base64 else vector.tolist())
        for number, vector in enumerate(vectors)
    ]
    usage = Usage(prompt_tokens=tokens, total_tokens=tokens)
    return EmbeddingsAnswer(model=body.model, data=data, usage=usage)


def _base64(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
