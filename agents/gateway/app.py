"""The FastAPI app: routes, errors, and what every request passes first."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.middleware.cors import CORSMiddleware

from agents.gateway import health, river
from agents.gateway.access.bodies import BodyLimit, KnownHost
from agents.gateway.errors import handle_errors
from agents.gateway.metrics import Measured
from agents.gateway.openai import embeddings, routes
from agents.gateway.state import Gateway

TITLE: Final = "Headwater"


def make_app(gateway: Gateway) -> FastAPI:
    """An app over a gateway that is opened and closed by others."""
    app = FastAPI(title=TITLE, version="1", description=__doc__, redoc_url=None)
    app.state.gateway = gateway
    handle_errors(app)
    for router in (routes.router, embeddings.router, river.router, health.router):
        app.include_router(router)
    # The last one added is the first one passed.
    app.add_middleware(BodyLimit, bytes_max=gateway.settings.body_bytes_max)
    origins = [item.strip() for item in gateway.settings.cors_origins.split(",") if item.strip()]
    if origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"]
        )
    app.add_middleware(KnownHost, keys_required=lambda: gateway.keys.required)
    app.add_middleware(Measured, metrics=gateway.metrics)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The document without FastAPI's own 422, which is a 400 here, as at OpenAI."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description="", routes=app.routes
        )
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        app.openapi_schema = document
    return app.openapi_schema
