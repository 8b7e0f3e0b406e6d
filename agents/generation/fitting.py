"""What becomes of a finished record that is over the size of a topic.

Its limits allow for it: a context may hold 4 MiB of passages, and the answer comes on top.
"""

from __future__ import annotations

import msgspec

from schemas import limits
from schemas.errors import RecordTooLarge
from schemas.events import Generation


def shrunk(generation: Generation, refusal: RecordTooLarge) -> Generation:
    """The record with finish_reason `error`: first without its passages, then without its texts.

    An answer whose passages nobody can look up is not one to trust, hence the error. Raises the
    refusal itself when there is nothing left to leave out.
    """
    if not (generation.passages or generation.text):
        raise refusal
    left_out = "passages were" if generation.passages else "text was"
    return msgspec.structs.replace(
        generation,
        text=generation.text if generation.passages else "",
        logprobs=[],
        alternatives=[],
        passages=[],
        cited=[],
        finish_reason="error",
        error=f"{refusal} Its {left_out} left out."[: limits.REASON_CHARS_MAX],
    )
