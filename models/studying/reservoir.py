"""A sample of all texts that were studied, for replay: each is in it with the same chance."""

from __future__ import annotations

import hashlib

import msgspec

from models.studying.texts import Text


class Reservoir(msgspec.Struct):
    """Algorithm R (Vitter 1985), with draws that are hashes of a counter instead of a generator.

    So its whole state are these fields, and a restored one goes on with the same draws. `seen`
    counts texts that were offered, `drawn` those that were replayed.
    """

    capacity: int
    seen: int = 0
    drawn: int = 0
    texts: list[Text] = []

    def offer(self, text: Text) -> None:
        """Takes a text in, with the chance capacity / seen; its older state leaves."""
        self.forget(text.text_id)
        self.seen += 1
        if len(self.texts) < self.capacity:
            self.texts.append(text)
            return
        place = _draw(f"offer/{self.seen}", self.seen)
        if place < self.capacity:
            self.texts[place] = text

    def forget(self, text_id: str) -> None:
        """Removes a text that is deleted; its place stays free until the next one comes."""
        self.texts = [text for text in self.texts if text.text_id != text_id]

    def draw(self, count: int) -> list[Text]:
        """`count` texts with replacement; none of an empty reservoir."""
        found = []
        for _ in range(count if self.texts else 0):
            self.drawn += 1
            found.append(self.texts[_draw(f"draw/{self.drawn}", len(self.texts))])
        return found


def _draw(name: str, below: int) -> int:
    """A number from 0 on; the bias of a modulo over 64 bits is of no account."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % below
