"""Who runs when: requests join and leave the batch between steps. All tensors but logits are
elsewhere."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from models.engine.batch_model import BatchModel
from models.engine.detokenize import TextStream
from models.engine.grammar import Vocabulary
from models.engine.logprobs import token_logprob
from models.engine.protocol import FinishReason, Piece, TokenLogprob
from models.engine.sampling import Chosen, Sampler, choose_tokens

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Sequence:
    """One request on its way. `cancelled` is the only field that another thread sets."""

    request_id: str
    prompt: list[int]
    max_tokens: int
    sampler: Sampler
    text: TextStream
    send: Callable[[Piece], None]
    # Where log probabilities are asked for.
    vocabulary: Vocabulary | None = None
    cancelled: bool = False
    completion_tokens: int = 0
    last_token: int = -1
    logprobs: list[TokenLogprob] = field(default_factory=list)

    @property
    def position(self) -> int:
        """How many positions the model has read: where `last_token` goes next."""
        return len(self.prompt) + self.completion_tokens - 1

    def piece(self, text: str, reason: FinishReason | None = None, error: str = "") -> Piece:
        logprobs, self.logprobs = tuple(self.logprobs), []
        return Piece(text, self.completion_tokens, len(self.prompt), reason, error, logprobs)


class Scheduler:
    """`running[i]` is row i of the model; rows stay packed from 0."""

    def __init__(self, model: BatchModel, slots: int, ends: frozenset[int]) -> None:
        self.model = model
        self.slots = slots
        self.ends = ends
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.running

    def step(self) -> None:
        """One prefill at most, so that running streams wait for one prompt, never for a queue."""
        self._drop_cancelled()
        self._prefill_one()
        self._decode_all()

    def _drop_cancelled(self) -> None:
        self.waiting = deque(s for s in self.waiting if not s.cancelled)
        self._remove([s for s in self.running if s.cancelled])

    def _prefill_one(self) -> None:
        if not self.waiting or len(self.running) >= self.slots:
            return
        sequence = self.waiting.popleft()
        try:
            logits = self.model.prefill(len(self.running), sequence.prompt)
            chosen = choose_tokens(logits[None], [sequence.sampler])[0]
            finished = self._advance(sequence, chosen)
        except Exception as error:
            # The other rows are untouched: only this request fails.
            self._fail([sequence], error)
            return
        if not finished:
            self.running.append(sequence)

    def _decode_all(self) -> None:
        batch = list(self.running)
        if not batch:
            return
        try:
            logits = self.model.decode([s.last_token for s in batch], [s.position for s in batch])
            chosen = choose_tokens(logits, [s.sampler for s in batch])
            pairs = zip(batch, chosen, strict=True)
            finished = [s for s, token in pairs if self._advance(s, token)]
        except Exception as error:
            # Some rows may be half written: none of them can go on.
            self.running.clear()
            self._fail(batch, error)
            return
        self._remove(finished)

    def _advance(self, sequence: Sequence, chosen: Chosen) -> bool:
        """Takes one token in and sends its text; whether the sequence is finished."""
        token = chosen.token
        sequence.completion_tokens += 1
        sequence.last_token = token
        ended = token in self.ends
        if sequence.vocabulary is not None and not ended:
            sequence.logprobs.append(token_logprob(chosen, sequence.vocabulary))
        full = sequence.completion_tokens >= sequence.max_tokens
        text = "" if ended else sequence.text.push(token)
        if (ended or full) and not sequence.text.stopped:
            text += sequence.text.finish()
        reason: FinishReason | None = "length" if full else None
        if ended or sequence.text.stopped:
            reason = "stop"
        if text or reason:
            sequence.send(sequence.piece(text, reason))
        return reason is not None

    def _remove(self, leaving: list[Sequence]) -> None:
        """The last row moves into each gap."""
        for sequence in leaving:
            row = self.running.index(sequence)
            last = self.running.pop()
            if last is not sequence:
                self.model.move(len(self.running), row, last.position)
                self.running[row] = last

    def _fail(self, sequences: list[Sequence], error: Exception) -> None:
        log.error("generation failed: %s", error, exc_info=error)
        for sequence in sequences:
            sequence.send(sequence.piece("", "error", f"{type(error).__name__}: {error}"))
