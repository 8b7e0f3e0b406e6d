"""Text held to a grammar: before each token, those that would break it are ruled out (xgrammar)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers import PreTrainedTokenizerBase

from models.engine.json_schema import followable
from models.engine.protocol import SamplingParams
from schemas.errors import EventInvalid

if TYPE_CHECKING:
    import xgrammar

# Compiled grammars that are kept for the next request with the same schema.
CACHE_BYTES_MAX: Final = 64 * 1_048_576

# In UTF-8 half a surrogate pair would be ED and then A0 to BF: that is no character.
_SURROGATE_LEAD: Final = b"\xed"
_SURROGATE_NEXT_MIN: Final = 0xA0


class Grammar:
    """The state of one text on its way through a grammar."""

    def __init__(self, compiled: xgrammar.CompiledGrammar, vocabulary: Vocabulary) -> None:
        import xgrammar

        self._matcher = xgrammar.GrammarMatcher(compiled)
        self._vocabulary = vocabulary
        self._bits = xgrammar.allocate_token_bitmask(1, vocabulary.size)
        self._after_lead = False

    def mask(self, logits: torch.Tensor) -> None:
        """Sets the logits (V,) of tokens that cannot come next to -inf."""
        import xgrammar

        self._matcher.fill_next_token_bitmask(self._bits)
        xgrammar.apply_token_bitmask_inplace(logits[None], self._bits.to(logits.device))
        if self._after_lead:
            logits[self._vocabulary.surrogate_ends.to(logits.device)] = -torch.inf

    def take(self, token: int) -> None:
        """Goes on by one token, which `mask` had left."""
        if not self._matcher.accept_token(token):
            raise RuntimeError(f"The grammar does not allow token {token} here.")
        self._after_lead = self._vocabulary.texts[token].endswith(_SURROGATE_LEAD)


class Vocabulary:
    """The bytes of each token. Takes a second to make, and once 3 s to load the library."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, size: int, ends: Collection[int]
    ) -> None:
        import xgrammar

        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=size)
        self.size = size
        self.texts: list[bytes] = info.decoded_vocab
        self.ends = sorted(ends)
        self._special = {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}

    @cached_property
    def surrogate_ends(self) -> torch.Tensor:
        """Ids of tokens that may not follow a lone ED byte."""
        return torch.tensor(
            [
                token
                for token, text in enumerate(self.texts)
                if text and _SURROGATE_NEXT_MIN <= text[0] <= 0xBF
            ],
            dtype=torch.long,
        )

    def compiler(self) -> xgrammar.GrammarCompiler:
        """For JSON without needless white space."""
        import xgrammar

        # An empty text is never allowed. Special tokens would not show; JSON on one line has no
        # control characters, which the library lets into strings of bounded length.
        usable = [
            b"" if token in self._special or any(byte < 0x20 for byte in text) else text
            for token, text in enumerate(self.texts)
        ]
        info = xgrammar.TokenizerInfo(
            usable, xgrammar.VocabType.RAW, vocab_size=self.size, stop_token_ids=self.ends
        )
        return xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)


class Grammars:
    """Compiles grammars in a thread, one at a time, and keeps those used last."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, vocabulary_size: int, ends: Collection[int]
    ) -> None:
        self._make = (tokenizer, vocabulary_size, ends)
        self._vocabulary: Vocabulary | None = None
        self._compiler: Any = None
        self._compiled: OrderedDict[str, xgrammar.CompiledGrammar] = OrderedDict()
        self._lock = asyncio.Lock()

    async def vocabulary(self) -> Vocabulary:
        """The vocabulary, made at the first call."""
        async with self._lock:
            if self._vocabulary is None:
                self._vocabulary = await asyncio.to_thread(Vocabulary, *self._make)
            return self._vocabulary

    async def grammar(self, params: SamplingParams) -> Grammar | None:
        """A fresh grammar for one answer, or None if it is free.

        Raises EventInvalid for a schema that cannot be followed to the letter.
        """
        text = '{"type": "object"}' if params.json_object else params.json_schema
        if text is None:
            return None
        schema = followable(text)
        vocabulary = await self.vocabulary()
        async with self._lock:
            if schema not in self._compiled:
                compiled = await asyncio.to_thread(self._compile, vocabulary, schema)
                self._keep(schema, compiled)
            self._compiled.move_to_end(schema)
            return Grammar(self._compiled[schema], vocabulary)

    def _compile(self, vocabulary: Vocabulary, schema: str) -> xgrammar.CompiledGrammar:
        if self._compiler is None:
            self._compiler = vocabulary.compiler()
        try:
            compiled: xgrammar.CompiledGrammar = self._compiler.compile_json_schema(
                schema, any_whitespace=False
            )
            return compiled
        except RuntimeError as error:
            reason = str(error).strip().rpartition("] ")[2]
            raise EventInvalid(
                f"The JSON Schema cannot be followed: {reason}.",
                "Change it, or leave it out and check the answer yourself.",
            ) from error

    def _keep(self, schema: str, compiled: xgrammar.CompiledGrammar) -> None:
        self._compiled[schema] = compiled
        sizes = sum(kept.memory_size_bytes for kept in self._compiled.values())
        while sizes > CACHE_BYTES_MAX and len(self._compiled) > 1:
            sizes -= self._compiled.popitem(last=False)[1].memory_size_bytes
