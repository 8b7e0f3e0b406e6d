"""What OpenAI's clients send, and the few fields of ours beside; strict, so nothing is guessed."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from schemas import limits


def _whole(value: object) -> object:
    """JSON knows one kind of number: 3.0 is an integer too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _left_out(value: object) -> object:
    """Nothing is asked by these; anything else would be ignored in silence, so it is refused."""
    if value is None or value is False or value in ([], {}):
        return value
    raise PydanticCustomError("not_served", "this river cannot do that; leave it out")


# As many as the id of a streamed event has room for.
PROMPTS_MAX: Final = 20
WHOLE: Final = BeforeValidator(_whole)
# What OpenAI's API has and this river cannot do.
Unserved = Annotated[
    Any, BeforeValidator(_left_out), WithJsonSchema({"enum": [None, False, [], {}]})
]
Tokens = Annotated[int, Field(ge=1, le=limits.MAX_TOKENS_MAX), WHOLE]
Choices = Annotated[int, Field(ge=1, le=limits.N_MAX), WHOLE]
Seed = Annotated[int, Field(ge=0, le=limits.SEED_MAX), WHOLE]
TopLogprobs = Annotated[int, Field(ge=0, le=limits.TOP_LOGPROBS_MAX), WHOLE]
TopK = Annotated[int, Field(ge=0, le=limits.TOP_K_MAX), WHOLE]
Likeliest = Annotated[int, Field(ge=0, le=1_000_000), WHOLE]
Text = Annotated[str, Field(max_length=limits.MESSAGE_CHARS_MAX)]
Stop = Annotated[str, Field(min_length=1, max_length=limits.STOP_CHARS_MAX)]
Stops = Annotated[list[Stop], Field(max_length=limits.STOPS_MAX)]
User = Annotated[str, Field(min_length=1, max_length=200)]
Name = Annotated[str, Field(min_length=1, max_length=limits.NAME_CHARS_MAX)]


class Strict(BaseModel):
    """A part of a request. Unknown fields are ignored, as clients know newer ones than we do."""

    model_config = ConfigDict(strict=True, extra="ignore")


class TextPart(Strict):
    """A piece of a message; pictures and sound cannot be read here."""

    type: Literal["text"]
    text: Text


class ChatMessage(Strict):
    """One turn. `developer` is OpenAI's newer word for `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(min_length=1, max_length=64)]

    @property
    def text(self) -> str:
        """All of its text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class StreamOptions(Strict):
    """Whether the last event but one tells the tokens used."""

    include_usage: bool | None = None


class SchemaFormat(Strict):
    """A JSON Schema that the answer must follow."""

    name: Annotated[str, Field(max_length=limits.NAME_CHARS_MAX)] | None = None
    json_schema: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Strict):
    """Text, any JSON, or JSON under a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None


class Search(Strict):
    """Ours: which passages are found for the prompt; `top_k` 0 finds none."""

    top_k: TopK | None = None
    mode: Literal["fused", "dense", "keyword"] = "fused"
    score_floor: float | None = Field(None, ge=-1.0, le=1.0)
    filters: dict[Name, str | int | float | bool] = Field({}, max_length=64)


class Sampled(Strict):
    """What chats and completions share. Without a temperature the likeliest token is taken."""

    model: Annotated[str, Field(max_length=limits.NAME_CHARS_MAX)]
    max_tokens: Tokens | None = None
    temperature: float | None = Field(None, ge=0.0, le=2.0)
    top_p: float | None = Field(None, gt=0.0, le=1.0)
    n: Choices | None = None
    stop: Stop | Stops | None = None
    seed: Seed | None = None
    frequency_penalty: float | None = Field(None, ge=-2.0, le=2.0)
    presence_penalty: float | None = Field(None, ge=-2.0, le=2.0)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: User | None = None
    top_k: Likeliest | None = Field(None, description="as vLLM's")
    min_p: float | None = Field(None, ge=0.0, le=1.0, description="as vLLM's")
    repetition_penalty: float | None = Field(None, gt=0.0, le=10.0, description="as vLLM's")
    logit_bias: Unserved = None
    retrieval: Search | None = Field(None, description="which passages the answer may use")
    conversation_id: Annotated[str, Field(min_length=1, max_length=limits.ID_CHARS_MAX)] | None = (
        Field(None, description="joins the prompts of one conversation")
    )

    @property
    def counts_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(Sampled):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=limits.MESSAGES_MAX)]
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = Field(None, max_length=1)
    tools: Unserved = None
    tool_choice: Literal["none", "auto"] | None = None
    functions: Unserved = None
    function_call: Literal["none", "auto"] | None = None
    audio: Unserved = None
    web_search_options: Unserved = None


class CompletionRequest(Sampled):
    """`POST /v1/completions`: a prompt is one turn of a user, under the model's chat template."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=PROMPTS_MAX)]
    logprobs: TopLogprobs | None = None
    best_of: Annotated[int, Field(ge=1, le=1), WHOLE] | None = None
    echo: Unserved = None
    suffix: Unserved = None

    @property
    def texts(self) -> list[str]:
        """The prompts, each with answers of its own."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class EmbeddingsRequest(Strict):
    """`POST /v1/embeddings`. Texts only: tokens are those of one tokenizer."""

    model: Annotated[str, Field(max_length=limits.NAME_CHARS_MAX)]
    input: (
        Annotated[str, Field(min_length=1, max_length=limits.PASSAGE_CHARS_MAX)]
        | Annotated[
            list[Annotated[str, Field(min_length=1, max_length=limits.PASSAGE_CHARS_MAX)]],
            Field(min_length=1, max_length=256),
        ]
    )
    encoding_format: Literal["float", "base64"] | None = None
    # Nothing but the embedder's own number, which only the embedder knows.
    dimensions: Annotated[int | None, WHOLE, WithJsonSchema({"type": "null"})] = None
    user: User | None = None

    @property
    def texts(self) -> list[str]:
        """What is to be embedded."""
        return [self.input] if isinstance(self.input, str) else self.input
