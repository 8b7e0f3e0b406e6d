import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.engine.protocol import SamplingParams
from models.engine.sampling import Sampler, choose_tokens
from schemas.errors import EventInvalid

LOGITS = torch.tensor([1.0, 3.0, 2.0, -1.0])


def draws(count: int = 200, logits: torch.Tensor = LOGITS, **options: float) -> list[int]:
    sampler = Sampler(SamplingParams(**options))  # type: ignore[arg-type]
    return [sampler.draw(logits) for _ in range(count)]


def test_temperature_zero_takes_the_likeliest_token_of_each_row() -> None:
    rows = torch.stack([LOGITS, -LOGITS])
    assert choose_tokens(rows, [Sampler(SamplingParams())] * 2) == [1, 3]


def test_greedy_and_drawn_rows_share_a_batch() -> None:
    drawn = Sampler(SamplingParams(temperature=1.0, seed=5))
    tokens = choose_tokens(torch.stack([LOGITS, LOGITS]), [Sampler(SamplingParams()), drawn])
    assert tokens == [1, draws(1, temperature=1.0, seed=5)[0]]


def test_the_same_seed_draws_the_same_tokens_and_another_seed_does_not() -> None:
    assert draws(temperature=1.0, seed=1) == draws(temperature=1.0, seed=1)
    assert draws(temperature=1.0, seed=1) != draws(temperature=1.0, seed=2)


def test_top_k_keeps_the_k_likeliest() -> None:
    assert set(draws(temperature=5.0, top_k=2)) == {1, 2}


def test_top_k_may_exceed_the_vocabulary() -> None:
    assert set(draws(temperature=5.0, top_k=1000)) == {0, 1, 2, 3}


def test_top_p_keeps_the_smallest_set_that_holds_p() -> None:
    # Chances at temperature 1: 0.64 (token 1), 0.24 (2), 0.09 (0), 0.01 (3).
    assert set(draws(temperature=1.0, top_p=0.5)) == {1}
    assert set(draws(temperature=1.0, top_p=0.8)) == {1, 2}


def test_draws_follow_the_softmax() -> None:
    share = draws(4000, temperature=1.0).count(1) / 4000
    assert share == pytest.approx(float(LOGITS.softmax(0)[1]), abs=0.03)


@given(
    logits=st.lists(st.floats(-50, 50), min_size=1, max_size=20),
    temperature=st.floats(1e-4, 100),
    top_p=st.floats(0.001, 1.0),
    top_k=st.integers(0, 25),
)
def test_a_draw_is_always_one_of_the_k_likeliest(
    logits: list[float], temperature: float, top_p: float, top_k: int
) -> None:
    row = torch.tensor(logits)
    token = draws(1, row, temperature=temperature, top_p=top_p, top_k=top_k)[0]
    likelier = int((row > row[token]).sum())
    assert likelier < (top_k or len(logits))


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"seed": -1}, "seed"),
        ({"stop": ("x", "")}, "stop"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, float], fault: str) -> None:
    with pytest.raises(EventInvalid, match=fault):
        SamplingParams(**options)  # type: ignore[arg-type]
