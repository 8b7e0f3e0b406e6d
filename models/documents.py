"""From a published document to passages: clean, turn HTML into Markdown, split."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Final, Literal

from bs4 import BeautifulSoup
from markdownify import MarkdownConverter
from semantic_text_splitter import MarkdownSplitter, TextSplitter
from tokenizers import Tokenizer

from models.defaults import PASSAGE_TOKENS_MAX

MediaType = Literal["text/plain", "text/markdown", "text/html"]

# A word of any length may be one unknown token; this bounds the passage all the same.
_TOKEN_CHARS_MAX: Final = 16
_UNREAD_TAGS: Final = ("script", "style", "nav", "template", "noscript")


def split_document(
    text: str,
    media_type: MediaType,
    tokenizer: Tokenizer,
    tokens_max: int = PASSAGE_TOKENS_MAX,
) -> list[str]:
    """Passages of at most `tokens_max` tokens (special ones not counted), in reading order.

    The same text gives the same passages. A text without words to read gives none; malformed
    HTML gives what can be read of it.
    """
    text = readable_text(text, media_type)
    splitters = _splitters(tokenizer, tokens_max)
    splitter = splitters[0] if media_type == "text/plain" else splitters[1]
    by_chars = TextSplitter(tokens_max * _TOKEN_CHARS_MAX)
    return [part for chunk in splitter.chunks(text) for part in by_chars.chunks(chunk)]


def readable_text(text: str, media_type: MediaType) -> str:
    """What of a document is read: HTML as Markdown, cleaned; "" when there are no words."""
    return _clean(_markdown(text) if media_type == "text/html" else text)


def _clean(text: str) -> str:
    """NFC; one kind of line end and of space; no control characters; no runs of empty lines."""
    lines: list[str] = []
    for line in unicodedata.normalize("NFC", text).splitlines():
        kept = "".join(map(_readable, line)).rstrip()
        if kept or (lines and lines[-1]):
            lines.append(kept)
    return "\n".join(lines).strip()


def _readable(char: str) -> str:
    category = unicodedata.category(char)
    if category == "Zs":
        return " "
    # Control characters and lone surrogates, which no UTF-8 text can hold; U+FEFF is a stray mark.
    return "" if (category in ("Cc", "Cs") and char != "\t") or char == "\ufeff" else char


def _markdown(html: str) -> str:
    soup = BeautifulSoup(html, "html.parser")
    for tag in soup(_UNREAD_TAGS):
        tag.decompose()
    for cell in soup(["td", "th"]):
        del cell["colspan"]  # markdownify writes a column for each, and a page may claim 1,000
    # Link and image addresses match no question, and only take the place of words.
    converter = MarkdownConverter(
        heading_style="ATX", strip=["a", "img"], escape_underscores=False, escape_asterisks=False
    )
    try:
        return converter.convert_soup(soup)
    except RecursionError:  # tags nested a thousand deep; get_text does not recurse
        return soup.get_text("\n")


@lru_cache(maxsize=4)
def _splitters(tokenizer: Tokenizer, tokens_max: int) -> tuple[TextSplitter, MarkdownSplitter]:
    # 40 ms each: they copy the vocabulary.
    return (
        TextSplitter.from_huggingface_tokenizer(tokenizer, tokens_max),
        MarkdownSplitter.from_huggingface_tokenizer(tokenizer, tokens_max),
    )
