import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import build_tiny_tokenizer

from models.engine.detokenize import Detokenizer, TextStream

TOKENIZER = build_tiny_tokenizer()
# A loaded machine is no fault.
patiently = settings(deadline=None)


def encode(text: str) -> list[int]:
    tokens: list[int] = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return tokens


def pieces_of(tokens: list[int]) -> list[str]:
    stream = Detokenizer(TOKENIZER)
    return [*(stream.push(token) for token in tokens), stream.finish()]


def shown(tokens: list[int], *stop: str) -> tuple[str, bool]:
    """What a reader sees, token by token, and whether a stop string ended it."""
    stream = TextStream(TOKENIZER, stop)
    text = ""
    for token in tokens:
        text += stream.push(token)
        if stream.stopped:
            return text, True
    return text + stream.finish(), stream.stopped


def test_an_emoji_comes_as_a_whole() -> None:
    tokens = encode("a🌊b")
    assert len(tokens) == 6
    assert pieces_of(tokens) == ["a", "", "", "", "🌊", "b", ""]


def test_an_emoji_cut_short_shows_as_a_replacement_character() -> None:
    assert pieces_of(encode("a🌊")[:-1])[-1] == "\N{REPLACEMENT CHARACTER}"


@patiently
@given(st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=40))
def test_pieces_of_any_tokens_add_up_to_their_decoding(tokens: list[int]) -> None:
    assert "".join(pieces_of(tokens)) == TOKENIZER.decode(tokens, skip_special_tokens=True)


@patiently
@given(st.text(max_size=40).filter(lambda text: text not in TOKENIZER.all_special_tokens))
def test_pieces_of_any_text_add_up_to_it(text: str) -> None:
    assert "".join(pieces_of(encode(text))) == text


@pytest.mark.parametrize("stop", ["STOP", "🌊", "d S", "here"])
def test_text_ends_before_a_stop_string_that_spans_tokens(stop: str) -> None:
    text = "word STOP 🌊 here"
    assert shown(encode(text), stop) == (text.partition(stop)[0], True)


def test_the_first_of_several_stop_strings_counts() -> None:
    assert shown(encode("one two three"), "three", "two") == ("one ", True)


def test_what_only_begins_like_a_stop_string_is_shown_in_the_end() -> None:
    assert shown(encode("wait STO"), "STOP") == ("wait STO", False)
    assert shown(encode("wait STOry"), "STOP") == ("wait STOry", False)


def test_what_may_begin_a_stop_string_is_held_back() -> None:
    stream = TextStream(TOKENIZER, ("STOP",))
    assert "".join(stream.push(token) for token in encode("wait STO")) == "wait "


def plainly_stopped(text: str, stops: list[str]) -> tuple[str, bool]:
    """Character by character, until one of the stop strings is complete."""
    for end in range(1, len(text) + 1):
        for start in range(end):
            if text[start:end] in stops:
                return text[:start], True
    return text, False


@patiently
@given(st.lists(st.integers(3, len(TOKENIZER) - 1), max_size=30), st.data())
def test_how_tokens_cut_text_and_characters_does_not_matter_to_stop_strings(
    tokens: list[int], data: st.DataObject
) -> None:
    text = TOKENIZER.decode(tokens)
    places = st.integers(0, max(0, len(text) - 1))
    parts = st.tuples(places, st.integers(1, 5)).map(lambda p: text[p[0] : p[0] + p[1]] or "?")
    stops = data.draw(st.lists(parts | st.text(min_size=1, max_size=3), max_size=4))
    assert shown(tokens, *stops) == plainly_stopped(text, stops)


@patiently
@given(st.text(max_size=20), st.data())
def test_characters_of_many_bytes_are_stopped_at_like_others(
    text: str, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, max(0, len(text) - 1)))
    stop = text[start : start + data.draw(st.integers(1, 3))] or "🌊"
    assert shown(encode(text), stop) == plainly_stopped(text, [stop])


def test_the_stop_string_that_is_complete_first_counts() -> None:
    assert shown(encode("xabcd"), "abcd", "bc") == ("xa", True)


@patiently
@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_no_stop_string_ever_shows(text: str, stops: list[str]) -> None:
    seen, stopped = shown(encode(text), *stops)
    assert text.startswith(seen)
    assert not any(stop in seen for stop in stops)
    assert stopped == any(stop in text for stop in stops)
    assert stopped or seen == text
