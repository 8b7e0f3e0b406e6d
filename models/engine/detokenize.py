"""From tokens to text, as they come: no half characters, and nothing of a stop string."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

# What decoders write for bytes that are no complete UTF-8 character (yet).
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """The text of each new token; all texts together equal the decoding of all tokens at once.

    A token's text depends on its neighbours (bytes of one character, a leading space), so a window
    is decoded: the tokens of the last text sent, then those not sent yet.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._sent = 0
        self._sent_text = ""

    def push(self, token: int) -> str:
        self._window.append(token)
        text = self._decode(self._window)
        new = text[len(self._sent_text) :]
        if not new or new.endswith(REPLACEMENT):
            return ""
        self._window = self._window[self._sent :]
        self._sent = len(self._window)
        self._sent_text = self._decode(self._window)
        return new

    def finish(self) -> str:
        """What was held back; an incomplete character shows as U+FFFD."""
        return self._decode(self._window)[len(self._sent_text) :]

    def _decode(self, tokens: list[int]) -> str:
        # Cleaning up spaces would rewrite text that was already sent.
        return str(
            self._tokenizer.decode(
                tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )


class TextStream:
    """Detokenises one generation and ends it before the first stop string."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: tuple[str, ...]) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._stop = stop
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Text that may be shown now: the end that may begin a stop string is held back."""
        text = self._before_stop(self._held + self._detokenizer.push(token))
        size = 0 if self.stopped else self._held_size(text)
        self._held = text[len(text) - size :]
        return text[: len(text) - size]

    def finish(self) -> str:
        """The rest, when the generation ends for another reason than a stop string."""
        return self._before_stop(self._held + self._detokenizer.finish())

    def _before_stop(self, text: str) -> str:
        found = [
            (place + len(stop), place) for stop in self._stop if (place := text.find(stop)) >= 0
        ]
        if not found:
            return text
        self.stopped = True
        # The one that was complete first, so that it does not matter how tokens cut the text.
        return text[: min(found)[1]]

    def _held_size(self, text: str) -> int:
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for size in range(min(longest, len(text)), 0, -1):
            end = text[-size:]
            if any(stop.startswith(end) for stop in self._stop):
                return size
        return 0
