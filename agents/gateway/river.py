"""`/v1/documents` and `/v1/feedback`: what OpenAI's API has no word for."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from agents.gateway.access.caller import Called, Shared
from agents.gateway.document_state import DocumentState, document_state
from agents.gateway.errors import ApiError
from agents.gateway.openai.requests import Name, Strict, User
from agents.gateway.openai.routes import REFUSED
from schemas import ids, limits
from schemas.events import Document, Feedback

router = APIRouter(prefix="/v1", tags=["Headwater"])

DocumentId = Annotated[str, Path(min_length=1, max_length=limits.ID_CHARS_MAX)]
Scalar = Annotated[str, Field(max_length=limits.LABEL_CHARS_MAX)] | int | float | bool


class DocumentRequest(Strict):
    """A text that is to become retrievable."""

    text: Annotated[str, Field(max_length=limits.DOCUMENT_CHARS_MAX)]
    title: Annotated[str, Field(max_length=limits.TITLE_CHARS_MAX)] | None = None
    source: Annotated[str, Field(max_length=limits.URI_CHARS_MAX)] | None = None
    media_type: Literal["text/plain", "text/markdown", "text/html"] = "text/plain"
    metadata: dict[Name, Scalar] = Field({}, max_length=limits.METADATA_ENTRIES_MAX)


# How a JSON Schema says that one of them is needed.
_ONE_OF_THEM: Final[JsonValue] = [
    {"required": [name], "properties": {name: {"type": kind, "minProperties": 1}}}
    for name, kind in (("rating", "number"), ("correction", "string"), ("labels", "object"))
]


class FeedbackRequest(Strict):
    """What a person thinks of an answer: one of rating, correction and labels at least.

    `prompt_id` is the id of the completion.
    """

    model_config = ConfigDict(json_schema_extra={"anyOf": _ONE_OF_THEM})

    prompt_id: Annotated[str, Field(min_length=1, max_length=limits.ID_CHARS_MAX)]
    rating: float | None = Field(None, ge=-1.0, le=1.0)
    correction: (
        Annotated[str, Field(min_length=1, max_length=limits.CORRECTION_CHARS_MAX)] | None
    ) = None
    labels: dict[Name, Annotated[str, Field(max_length=limits.LABEL_CHARS_MAX)]] = Field(
        {}, max_length=limits.LABELS_MAX
    )
    user: User | None = None


class FeedbackAnswer(BaseModel):
    """The feedback is in Kafka."""

    feedback_id: str
    prompt_id: str


@router.put(
    "/documents/{document_id:path}",
    status_code=202,
    response_model=DocumentState,
    responses=REFUSED,
)
async def put_document(
    document_id: DocumentId, body: DocumentRequest, caller: Called, gateway: Shared
) -> DocumentState:
    """Publish a document, or replace the one of this id; it becomes retrievable shortly after."""
    caller.require("documents")
    document = Document(
        body.text, document_id, body.media_type, body.title, body.source, dict(body.metadata)
    )
    await gateway.client.publish_document(document)
    return DocumentState(document_id=document_id, state="published")


@router.get("/documents/{document_id:path}", response_model=DocumentState, responses=REFUSED)
async def get_document(document_id: DocumentId, caller: Called, gateway: Shared) -> DocumentState:
    """Whether a document can be found, and how long that took."""
    found = await document_state(gateway.kafka, document_id)
    if found is None:
        raise ApiError(404, "There is no such document.", "document_not_found", "document_id")
    return found


@router.delete("/documents/{document_id:path}", status_code=204, responses=REFUSED)
async def delete_document(document_id: DocumentId, caller: Called, gateway: Shared) -> None:
    """Make a document and its passages irretrievable; also one that is not there."""
    caller.require("documents")
    await gateway.client.delete_document(document_id)


@router.post("/feedback", status_code=202, response_model=FeedbackAnswer, responses=REFUSED)
async def feedback(body: FeedbackRequest, caller: Called, gateway: Shared) -> FeedbackAnswer:
    """Say what a person thinks of an answer; the model learns from it."""
    if body.rating is None and body.correction is None and not body.labels:
        message = "One of rating, correction, labels is needed."
        raise ApiError(400, message, "invalid_request", "rating")
    feedback_id = ids.new_id("feedback")
    given = Feedback(
        prompt_id=body.prompt_id,
        feedback_id=feedback_id,
        user_id=caller.user_id(body.user),
        rating=body.rating,
        correction=body.correction,
        labels=dict(body.labels),
    )
    await gateway.client.feedback(given)
    return FeedbackAnswer(feedback_id=feedback_id, prompt_id=body.prompt_id)
