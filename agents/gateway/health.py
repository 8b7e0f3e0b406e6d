"""`/health/live`, `/health/ready` and `/metrics`, for whoever watches; no key is needed."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.responses import Response

from agents.gateway.access.caller import Shared
from agents.gateway.openai.routes import REFUSED

router = APIRouter(tags=["Health"])


class Health(BaseModel):
    """It is well."""

    status: str = "ok"


@router.get("/health/live", response_model=Health)
async def live() -> Health:
    """The process answers."""
    return Health()


@router.get("/health/ready", response_model=Health, responses={503: REFUSED[503]})
async def ready(gateway: Shared) -> Health:
    """Kafka can be reached too."""
    await gateway.client.check()
    return Health()


@router.get(
    "/metrics",
    response_model=None,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(gateway: Shared) -> Response:
    """Figures for Prometheus."""
    return Response(generate_latest(gateway.metrics.registry), media_type=CONTENT_TYPE_LATEST)
