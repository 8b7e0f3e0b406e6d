"""What an answer predicted of the labels that a person gives.

The truth is what a person says in `feedback.labels`. The prediction is what the answer says: its
field of the same name where the answer is a JSON object, or the label `NAME.predicted` that came
with the feedback, which counts before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

PREDICTED: Final = ".predicted"


def predicted_labels(labels: Mapping[str, str], answer: str) -> dict[str, str]:
    """What was predicted for the labels that a person gave, as far as anything was."""
    said = _json_fields(answer)
    truths = [name for name in labels if not name.endswith(PREDICTED)]
    found = {name: labels.get(name + PREDICTED, said.get(name)) for name in truths}
    return {name: value for name, value in found.items() if value is not None}


def _json_fields(answer: str) -> dict[str, str]:
    """The plain fields of an answer that is a JSON object, as labels would be written."""
    try:
        found = msgspec.json.decode(answer)
    except (msgspec.DecodeError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in found.items()
        if isinstance(value, str | int | float | bool)
    }
