"""Weights in the layout that a processor multiplies fastest: what they give is what they gave."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from models.engine import linears
from models.engine.assemble import few_rows_4bit
from models.engine.linears import (
    GROUP_SIZE,
    LEVELS_4BIT,
    Linear,
    can_pack_4bit,
    can_pack_onednn,
    rows_4bit_max,
)
from models.engine.options import TorchEngineOptions

FORMATS = [torch.float32, torch.bfloat16]
# What rounding may do to a sum of some hundred products of numbers near 1.
ERRORS = {torch.float32: 1e-4, torch.bfloat16: 0.25}


@pytest.mark.parametrize("intel", [False, True])
@pytest.mark.parametrize("dtype", FORMATS)
@settings(deadline=None)
@given(
    rows=st.integers(0, 80),
    outs=st.integers(1, 200),
    ins=st.integers(1, 200),
    biased=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_a_product_is_that_of_the_weights_themselves(
    dtype: torch.dtype, intel: bool, rows: int, outs: int, ins: int, biased: bool, seed: int
) -> None:
    some = torch.Generator().manual_seed(seed)
    weight = torch.randn(outs, ins, generator=some).to(dtype)
    bias = torch.randn(outs, generator=some).to(dtype) if biased else None
    x = torch.randn(rows, ins, generator=some).to(dtype)
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patched:
        patched.setattr(linears, "_is_intel", lambda: intel)
        product = Linear(weight, bias)(x)
    expected = functional.linear(x.float(), weight.float(), None if bias is None else bias.float())
    assert (product.shape, product.dtype) == (expected.shape, dtype)
    torch.testing.assert_close(product.float(), expected, atol=ERRORS[dtype], rtol=0.02)


@pytest.mark.parametrize("dtype", FORMATS)
def test_few_rows_are_multiplied_with_4_bits_and_many_with_all(dtype: torch.dtype) -> None:
    levels = torch.randint(0, LEVELS_4BIT + 1, (64, 96), generator=torch.Generator().manual_seed(0))
    # Evenly spaced and from the first to the last level in each group, as in the packaged file.
    levels[:, ::GROUP_SIZE], levels[:, 1::GROUP_SIZE] = 0, LEVELS_4BIT
    weight = ((levels - 8) * 0.25).to(dtype)
    if not can_pack_4bit(weight):
        pytest.skip("this processor has no fast product with 4-bit weights")
    narrow, wide = Linear(weight, few_rows_4bit=True), Linear(weight)
    x = torch.randn(40, 96, generator=torch.Generator().manual_seed(1)).to(dtype)
    most = rows_4bit_max(dtype)
    with torch.inference_mode():
        assert narrow._narrow is not None
        assert torch.equal(narrow(x[: most + 1]), wide(x[: most + 1]))
        few, exact = narrow(x[:most]).float(), functional.linear(x[:most].float(), weight.float())
    # Levels lose nothing: what is left is rounding of the rows and sums to bfloat16.
    torch.testing.assert_close(few, exact, atol=0.15, rtol=0.02)
    assert dtype == torch.bfloat16 or not torch.equal(few, wide(x[:most]))


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch has no MKL")
def test_mkl_packs_for_any_number_of_rows_and_refuses_others() -> None:
    weight = torch.randn(32, 16, generator=torch.Generator().manual_seed(2))
    assert linears.can_pack_mkl(weight)
    product = linears._packed_mkl(weight, None)
    for rows in (torch.randn(4, 8), torch.randn(16), torch.randn(2, 4, 16)):
        with pytest.raises(ValueError, match=r"instead of \(n, 16\)"):
            product(rows)


def test_where_mkl_does_not_keep_what_is_assumed_weights_stay_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight, x = torch.randn(8, 8), torch.randn(3, 8)
    monkeypatch.setattr(linears, "_is_intel", lambda: True)
    monkeypatch.setattr(linears, "_mkl_packs", lambda: False)
    assert not linears.can_pack_mkl(weight)
    assert torch.equal(Linear(weight)(x), functional.linear(x, weight))


@pytest.mark.parametrize(
    ("instructions", "intel", "packed", "most"),
    [
        (("avx2",), False, "oneDNN", 4),
        (("avx2", "avx512_f"), False, "oneDNN", 8),
        (("avx2", "avx512_f"), True, "MKL", 8),
        (("avx2",), True, "MKL", 0),
    ],
)
def test_float32_is_packed_for_the_library_that_knows_the_processor(
    monkeypatch: pytest.MonkeyPatch,
    instructions: tuple[str, ...],
    intel: bool,
    packed: str,
    most: int,
) -> None:
    monkeypatch.setattr(linears, "_has", lambda name: name in instructions)
    monkeypatch.setattr(linears, "_is_intel", lambda: intel)
    weight = torch.zeros(64, 96)
    assert can_pack_onednn(weight) == (packed == "oneDNN")
    assert Linear(weight, few_rows_4bit=True).narrow_rows_max == most


def test_rows_are_filled_up_to_few_numbers_by_an_eighth_at_most() -> None:
    sizes = [linears.padded_rows(count) for count in range(321)]
    assert all(count <= size <= 1.125 * count for count, size in enumerate(sizes))
    assert len(set(sizes)) < 50
    # Filled up again, nothing is added: what is built at the start is what comes.
    assert [linears.padded_rows(size) for size in sizes] == sizes


def test_whoever_asks_for_float32_gets_no_4_bits() -> None:
    assert few_rows_4bit(TorchEngineOptions(Path()))
    assert few_rows_4bit(TorchEngineOptions(Path(), dtype="bfloat16"))
    assert not few_rows_4bit(TorchEngineOptions(Path(), dtype="float32"))
    assert not few_rows_4bit(TorchEngineOptions(Path(), model="some/other"))
    assert few_rows_4bit(TorchEngineOptions(Path(), model="some/other", weights="4bit"))
