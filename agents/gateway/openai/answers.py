"""The answers of `shapes.py` for OpenAPI, and the small ones."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel


class Usage(BaseModel):
    """Tokens of a request."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int | None = None


class Found(BaseModel):
    """Ours: the prompt's id for feedback, the passages, and 1-based numbers of those cited."""

    prompt_id: str
    model_version: str
    passages: list[dict[str, Any]]
    cited: list[int]


class ChatAnswerMessage(BaseModel):
    """What the model said."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(BaseModel):
    """One answer of a chat."""

    index: int
    message: ChatAnswerMessage
    finish_reason: str
    logprobs: dict[str, Any] | None


class TextChoice(BaseModel):
    """One answer of a completion; of several prompts, each has its `headwater` in the first."""

    index: int
    text: str
    finish_reason: str
    logprobs: dict[str, Any] | None
    headwater: Found | None = None


class ChatAnswer(BaseModel):
    """A finished chat completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    headwater: Found


class TextAnswer(BaseModel):
    """A finished completion."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage
    headwater: Found


class Embedding(BaseModel):
    """A vector: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsAnswer(BaseModel):
    """Vectors in the order of the texts."""

    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: Usage


class Model(BaseModel):
    """A name that requests may use."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "headwater"


class Models(BaseModel):
    """All names."""

    object: Literal["list"] = "list"
    data: list[Model]
