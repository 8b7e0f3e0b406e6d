"""What Schemathesis is told of this API: models that exist, and short answers."""

from __future__ import annotations

from typing import Any

import schemathesis

from schemas.limits import MAX_TOKENS_MAX, NAME_CHARS_MAX

TOKENS_MAX = 4


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Other names of models would end every request with 404, and long answers take long."""
    # What is wrong on purpose must stay so.
    if isinstance(body, dict) and _fits(body.get("model")):
        body["model"] = "minilm" if "input" in body else "headwater"
        for name in ("max_tokens", "max_completion_tokens"):
            if type(body.get(name)) is int and TOKENS_MAX < body[name] <= MAX_TOKENS_MAX:
                body[name] = TOKENS_MAX
    return body


def _fits(model: object) -> bool:
    return isinstance(model, str) and len(model) <= NAME_CHARS_MAX
