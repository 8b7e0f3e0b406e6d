"""What the limits make possible: answers and finished records over the size of their topics."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from agents.generation.chunks import Part
from agents.generation.draft import Draft, last_chunk, write_answer
from agents.generation.fitting import shrunk
from models.engine.protocol import GenerationRequest, Piece
from schemas import codec, limits
from schemas.errors import RecordTooLarge
from schemas.events import Context, FoundPassage, Generation, Message, Prompt, Sampling
from schemas.topics import CONTEXTS, GENERATIONS, TOKENS

# A control character takes six bytes in JSON: nothing takes more.
WIDEST = "\x01"


def context(passages: int = 0) -> Context:
    long = WIDEST * limits.PASSAGE_CHARS_MAX
    found = [FoundPassage(f"p#{n}", "p", long, 1.0) for n in range(passages)]
    return Context("prompt", Prompt([Message("user", "?")]), found, 1, 1)


def finished(passages: int, text: str) -> Generation:
    draft = Draft(context(passages), "model", "base", 1)
    draft.choices[0].finish_reason, draft.choices[0].text = "stop", text
    draft.passages = draft.context.passages
    return draft.finished()


def refusal(generation: Generation) -> RecordTooLarge:
    with pytest.raises(RecordTooLarge) as caught:
        codec.checked(GENERATIONS, generation)
    return caught.value


def test_a_context_that_fits_can_make_a_finished_record_that_does_not() -> None:
    passages = 34
    codec.checked(CONTEXTS, context(passages))
    whole = finished(passages, WIDEST * limits.ANSWER_CHARS_MAX)
    told = shrunk(whole, refusal(whole))
    codec.checked(GENERATIONS, told)
    assert (told.finish_reason, told.text, told.passages) == ("error", whole.text, [])
    assert "passages were left out" in (told.error or "")


def test_the_last_chunk_of_the_longest_answer_fits_with_all_its_text_twice() -> None:
    text = WIDEST * limits.ANSWER_CHARS_MAX
    codec.checked(TOKENS, last_chunk(finished(0, text), 1, 0, Part(text)))


def test_a_broker_that_takes_even_less_gets_no_text_either_and_then_the_refusal_itself() -> None:
    error = RecordTooLarge("too large")
    bare = shrunk(shrunk(finished(1, "wet"), error), error)
    assert (bare.text, bare.passages, bare.finish_reason) == ("", [], "error")
    with pytest.raises(RecordTooLarge):
        shrunk(bare, error)


class Talker:
    """An engine that says the same for ever, and knows when its stream was closed."""

    model, model_version, context_tokens_max = "talker", "base", 1_000
    running = waiting = 0

    def __init__(self, word: str) -> None:
        self._word = word
        self.closed = False

    def count_tokens(self, messages: Any) -> int:
        return 1

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        try:
            count = 0
            while True:
                count += 1
                yield Piece(self._word, count, 1)
        finally:
            self.closed = True

    async def start(self) -> None: ...

    async def close(self) -> None: ...


@pytest.mark.asyncio
async def test_an_answer_ends_at_the_limit_of_its_text_and_frees_the_engine() -> None:
    engine, sent = Talker("x" * 30_000), list[Part]()
    draft = Draft(
        Context("p", Prompt([Message("user", "?")], sampling=Sampling(max_tokens=8_192)), [], 1, 1),
        "talker",
        "base",
        1,
    )
    await write_answer(draft, engine, 0, sent.append)
    (answer,) = draft.choices
    assert answer.finish_reason == "length"
    assert len(answer.text) == limits.ANSWER_CHARS_MAX
    assert "".join(part.text for part in sent) == answer.text
    assert engine.closed
