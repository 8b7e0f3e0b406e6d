"""What devices send, and what the server takes of it."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.federation.aggregation import admit, summed
from models.federation.deltas import Compression, clip, noised, norm_of, pack, unpack
from models.federation.layout import Flat, flatten, layout_digest, unflatten
from schemas.errors import DataInvalid

SIZE = 5000


def a_delta(seed: int, norm: float = 0.9, size: int = SIZE) -> Flat:
    drawn = np.random.default_rng(seed).normal(size=size)
    return (norm * drawn / np.linalg.norm(drawn)).astype(np.float32)


def test_an_adapter_is_the_same_after_it_was_one_array() -> None:
    arrays = {"b": np.ones((3, 2), np.float32), "a": np.arange(4, dtype=np.float32).reshape(1, 4)}
    flat = flatten(arrays)
    assert flat.tolist() == [0, 1, 2, 3, 1, 1, 1, 1, 1, 1]
    again = unflatten(flat, arrays)
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)
    with pytest.raises(DataInvalid, match="9 parameters was expected to have 10"):
        unflatten(flat[:-1], arrays)


def test_another_rank_is_another_layout() -> None:
    four, eight = ({"lora_A": np.zeros((rank, 16), np.float32)} for rank in (4, 8))
    assert layout_digest(four) != layout_digest(eight)


@given(seed=st.integers(0, 100), norm=st.floats(0.01, 1e4), norm_max=st.floats(0.1, 10.0))
def test_a_clipped_delta_is_never_longer_than_allowed(
    seed: int, norm: float, norm_max: float
) -> None:
    assert norm_of(clip(a_delta(seed, norm, 300), norm_max)) <= norm_max


@pytest.mark.parametrize(
    ("compression", "share_max", "error_max"),
    [("none", 1.001, 0.0), ("int8", 0.27, 0.01), ("topk", 0.21, 0.75)],
)
def test_what_compression_saves_and_costs(
    compression: Compression, share_max: float, error_max: float
) -> None:
    delta = a_delta(1)
    payload = pack(delta, compression)
    found = unpack(payload, SIZE)
    assert len(payload) <= share_max * delta.nbytes
    assert norm_of(found - delta) <= error_max * norm_of(delta)


@given(size=st.integers(1, 600), compression=st.sampled_from(["none", "int8", "topk"]))
def test_any_size_can_be_packed(size: int, compression: Compression) -> None:
    assert unpack(pack(a_delta(2, size=size), compression), size).shape == (size,)
    zeros = np.zeros(size, np.float32)
    assert not unpack(pack(zeros, compression), size).any()


@given(payload=st.binary(max_size=100))
def test_bytes_that_are_no_delta_are_refused_not_a_crash(payload: bytes) -> None:
    with suppress(DataInvalid):
        assert unpack(payload, 20).shape == (20,)


def test_poisoned_deltas_are_refused_with_the_reason() -> None:
    honest, scaled = a_delta(3), a_delta(4, norm=50.0)
    broken = honest.copy()
    broken[7] = np.nan
    payloads = {1: honest, 2: scaled, 3: broken}
    found = admit(
        {node: pack(delta, "none") for node, delta in payloads.items()} | {4: b"\x00cut"},
        SIZE,
        norm_max=1.0,
    )
    assert found.deltas.keys() == {1}
    assert "has the norm 50; 1 is allowed" in found.refused[2]
    assert "not finite" in found.refused[3]
    assert "cannot be read" in found.refused[4]


def test_what_is_admitted_is_no_longer_than_the_privacy_rests_on() -> None:
    # Just over, as compression may make it: taken, and cut again.
    found = admit({1: pack(a_delta(5, norm=1.03), "none")}, SIZE, norm_max=1.0)
    assert norm_of(found.deltas[1]) <= 1.0


def test_noise_of_the_device_hides_one_delta_and_is_expected_by_the_server() -> None:
    hidden = noised(a_delta(6), 0.5)
    noise = hidden - a_delta(6)
    assert noise.std() == pytest.approx(0.5, rel=0.1)
    assert not np.array_equal(hidden, noised(a_delta(6), 0.5))
    sent = {1: pack(hidden, "none"), 2: pack(a_delta(7, norm=50.0), "none")}
    assert admit(sent, SIZE, norm_max=1.0).deltas == {}
    taken = admit(sent, SIZE, norm_max=1.0, noise_multiplier=0.5)
    assert taken.deltas.keys() == {1}
    assert np.array_equal(taken.deltas[1], hidden)


def test_the_sum_does_not_depend_on_who_answers_first() -> None:
    deltas = {node: a_delta(node) for node in (3, 1, 2)}
    backwards = {node: deltas[node] for node in (2, 1, 3)}
    assert np.array_equal(summed(deltas), summed(backwards))
