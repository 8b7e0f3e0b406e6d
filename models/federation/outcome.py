"""What a round's ServerApp leaves for the federate agent."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

import msgspec

SUM_FILE = "sum.npy"
OUTCOME_FILE = "outcome.json"


class Outcome(msgspec.Struct):
    """`digests` are of the packed deltas that were added up, by node id; `failed` says why others
    were not; `reason` is why there is no sum, if so. JSON has text keys only."""

    round_id: str
    digests: dict[str, str] = {}
    failed: dict[str, str] = {}
    received_bytes: int = 0
    seconds: float = 0.0
    reason: str | None = None

    def fill(
        self, payloads: Mapping[int, bytes], used: Collection[int], failed: Mapping[int, str]
    ) -> None:
        """What came, of whom, and what was made of it."""
        self.received_bytes = sum(map(len, payloads.values()))
        self.digests = {str(n): hashlib.sha256(payloads[n]).hexdigest() for n in sorted(used)}
        self.failed = {str(node): reason for node, reason in failed.items()}
