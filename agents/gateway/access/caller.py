"""Who calls: the API key of a request, checked and counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from agents.gateway.access.quotas import SEPARATOR
from agents.gateway.errors import ApiError
from agents.gateway.state import Gateway

ANONYMOUS: Final = "anonymous"
_BEARER: Final = HTTPBearer(auto_error=False, description="an API key, where the gateway has any")


@dataclass(frozen=True, slots=True)
class Caller:
    """The key's name, which begins the `user_id` of its prompts, and what it may do."""

    name: str
    scopes: frozenset[str]
    requests_per_minute: int
    tokens_per_day: int | None
    headers: dict[str, str]

    def user_id(self, user: str | None) -> str | None:
        """A user of this caller; without a name the key itself is the user, if there is one.

        Names of different keys never meet. `join` makes pseudonyms of them (docs/PRIVACY.md).
        """
        if self.name == ANONYMOUS:
            return user
        return f"{self.name}{SEPARATOR}{user or ''}"

    def require(self, scope: str) -> None:
        """Raises ApiError (403) where the key does not allow this."""
        if scope not in self.scopes:
            raise ApiError(403, f"This key lacks the scope {scope!r}.", "scope_missing")


def gateway_of(request: Request) -> Gateway:
    """What the app of a request shares."""
    gateway: Gateway = request.app.state.gateway
    return gateway


def caller_of(
    request: Request,
    response: Response,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
) -> Caller:
    """The caller, whose request counts from here on. Raises ApiError (401, 429)."""
    gateway = gateway_of(request)
    caller = known_caller(gateway, credentials.credentials if credentials else None)
    response.headers.update(caller.headers)
    return caller


def known_caller(gateway: Gateway, secret: str | None) -> Caller:
    """The caller with this key, whose request is counted. Raises ApiError (401, 429)."""
    per_minute = gateway.settings.requests_per_minute
    gateway.keys.look()
    if not gateway.keys.required:
        headers = gateway.limits.take(ANONYMOUS, per_minute)
        scopes = frozenset({"documents", "operator"})
        return Caller(ANONYMOUS, scopes, per_minute, None, headers)
    key = gateway.keys.find(secret) if secret else None
    if key is None:
        said = "is not known" if secret else "is missing"
        raise ApiError(
            401,
            f"The API key {said}. Send it as `Authorization: Bearer …`.",
            "invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
    per_minute = key.requests_per_minute or per_minute
    headers = gateway.limits.take(key.name, per_minute)
    return Caller(key.name, frozenset(key.scopes), per_minute, key.tokens_per_day, headers)


Called = Annotated[Caller, Depends(caller_of)]
Shared = Annotated[Gateway, Depends(gateway_of)]
