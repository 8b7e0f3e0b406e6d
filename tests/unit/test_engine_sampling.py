"""Penalties, cuts and draws, beside the plainest way to do each."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from models.engine.draw import SIZES, cut_tokens, draw, draw_from_all, ordered, uniform
from models.engine.protocol import SamplingParams
from models.engine.sampling import Chosen, Sampler, choose_tokens
from schemas.errors import EventInvalid

# A loaded machine is no fault.
patiently = settings(deadline=None, max_examples=60)

LOGITS = torch.tensor([1.0, 3.0, 2.0, -1.0])
CUTS = st.fixed_dictionaries(
    {
        # Not so low that float32 rounds probabilities to 0: these are never kept.
        "temperature": st.floats(0.5, 5),
        "top_p": st.sampled_from([1.0, 0.99, 0.9, 0.5, 0.05]),
        "top_k": st.sampled_from([0, 1, 5, 64, 65, 100, 5000]),
        "min_p": st.sampled_from([0.0, 0.001, 0.05, 0.5, 1.0]),
    }
)


def random_logits(seed: int, rows: int, size: int, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * spread


def draws(count: int = 200, logits: torch.Tensor = LOGITS, **options: Any) -> list[int]:
    sampler = Sampler(SamplingParams(**options))
    return [choose_tokens(logits[None], [sampler])[0].token for _ in range(count)]


def adjusted(logits: torch.Tensor, sampler: Sampler) -> torch.Tensor:
    row = logits.clone()
    sampler.adjust(row)
    return row


def plainly_kept(logits: torch.Tensor, params: SamplingParams) -> set[int]:
    """Each cut in the fewest words, in Python floats, over the tokens from the likeliest down."""
    scores = [float(x) / params.temperature for x in logits]
    order = sorted(range(len(scores)), key=lambda t: (-scores[t], t))
    if params.top_k:
        kth = scores[order[min(params.top_k, len(order)) - 1]]
        order = [t for t in order if scores[t] >= kth]
    weights = [math.exp(scores[t] - scores[order[0]]) for t in order]
    kept, before = set(), 0.0
    for token, weight in zip(order, weights, strict=True):
        nucleus = params.top_p == 1.0 or before < params.top_p * sum(weights)
        if nucleus and weight >= params.min_p:
            kept.add(token)
        before += weight
    return kept


def hugging_face_kept(logits: torch.Tensor, params: SamplingParams) -> set[int]:
    scores = TemperatureLogitsWarper(params.temperature)(None, logits[None])
    if params.top_k:
        scores = TopKLogitsWarper(params.top_k)(None, scores)
    if params.top_p < 1.0:
        scores = TopPLogitsWarper(params.top_p)(None, scores)
    if params.min_p:
        scores = MinPLogitsWarper(params.min_p)(None, scores)
    return set((scores[0] > -torch.inf).nonzero()[:, 0].tolist())


def our_kept(logits: torch.Tensor, params: SamplingParams) -> set[int]:
    """As `draw` finds it: with the likeliest few where that is enough."""
    probabilities = (logits[None] / torch.tensor(params.temperature)).softmax(-1)
    for size in (*SIZES, len(logits)):
        values, tokens = ordered(probabilities, size)
        kept, known = cut_tokens(values, [params], whole=values.shape[1] == len(logits))
        if known:
            return set(tokens[kept].tolist())
    raise AssertionError("all tokens are always enough")


def test_temperature_zero_takes_the_likeliest_token_of_each_row() -> None:
    rows = torch.stack([LOGITS, -LOGITS])
    assert choose_tokens(rows, [Sampler(SamplingParams()) for _ in rows]) == [Chosen(1), Chosen(3)]


@patiently
@given(CUTS, st.integers(0, 2**32), st.sampled_from([3, 70, 300, 3000]))
def test_the_cuts_keep_what_plain_loops_and_hugging_face_keep(
    options: dict[str, Any], seed: int, size: int
) -> None:
    params = SamplingParams(**options)
    logits = random_logits(seed, 1, size)[0]
    # On a boundary, rounding decides: the next larger and smaller cut must agree.
    nearby = [
        SamplingParams(**{**options, "top_p": params.top_p**f, "min_p": params.min_p / g})
        for f, g in ((1 - 1e-5, 1 + 1e-5), (1 + 1e-5, 1 - 1e-5))
        if params.min_p / g <= 1.0
    ]
    assume(all(plainly_kept(logits, near) == plainly_kept(logits, params) for near in nearby))
    assert our_kept(logits, params) == plainly_kept(logits, params)
    assert our_kept(logits, params) == hugging_face_kept(logits, params)


@patiently
@given(st.lists(st.integers(0, 3), min_size=65, max_size=200), CUTS)
def test_equally_likely_tokens_are_cut_alike_whatever_was_looked_at(
    levels: list[int], options: dict[str, Any]
) -> None:
    """bfloat16 makes ties common; top-k of a library may take any of them."""
    logits = torch.tensor(levels, dtype=torch.float32)
    params = SamplingParams(**options)
    kept = our_kept(logits, params)
    values, tokens = ordered(
        (logits[None] / torch.tensor(params.temperature)).softmax(-1), len(logits)
    )
    assert kept == set(tokens[cut_tokens(values, [params], whole=True)[0]].tolist())


@patiently
@given(
    st.integers(0, 2**32),
    st.lists(
        CUTS | st.fixed_dictionaries({"temperature": st.floats(0, 3)}), min_size=2, max_size=9
    ),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_a_row_is_chosen_alike_alone_and_among_others(
    seed: int, options: list[dict[str, Any]], dtype: torch.dtype
) -> None:
    logits = random_logits(seed, len(options), 5000).to(dtype)
    params = [
        SamplingParams(seed=i, logprobs=True, top_logprobs=i % 4, **o)
        for i, o in enumerate(options)
    ]
    together = choose_tokens(logits, [Sampler(p) for p in params])
    alone = [
        choose_tokens(row[None], [Sampler(p)])[0] for row, p in zip(logits, params, strict=True)
    ]
    assert together == alone


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.0},
        {"temperature": 0.7, "top_k": 3},
        {"temperature": 2.0, "top_p": 0.8},
        {"temperature": 1.5, "min_p": 0.2},
    ],
)
def test_each_token_is_drawn_as_often_as_its_probability_says(options: dict[str, Any]) -> None:
    """Exactly, not by chance: the shares of [0, 1) that lead to each token."""
    params, steps = SamplingParams(**options), 4_000
    logits = torch.tensor([0.5, 2.0, 1.0, -1.0, 1.7])
    kept = sorted(plainly_kept(logits, params))
    expected = (logits[kept] / params.temperature).softmax(0)
    grid = [(i + 0.5) / steps for i in range(steps)]
    drawn = torch.tensor(draw(logits.expand(steps, -1).clone(), [params] * steps, grid))
    shares = torch.bincount(drawn, minlength=5)[kept] / steps
    assert shares.tolist() == pytest.approx(expected.tolist(), abs=2 / steps)
    assert int(torch.bincount(drawn, minlength=5)[kept].sum()) == steps


def test_draws_under_seeds_follow_the_softmax() -> None:
    """Chi-square over 4 tokens: 3 degrees of freedom, 16.27 is passed once in 1,000 seeds."""
    count = 4000
    found = torch.bincount(torch.tensor(draws(count, temperature=1.0, seed=3)), minlength=4)
    expected = LOGITS.softmax(0) * count
    assert float(((found - expected) ** 2 / expected).sum()) < 16.27


@patiently
@given(st.integers(0, 2**32), st.integers(1, 2000), st.floats(0, 1, exclude_max=True))
def test_no_token_without_a_chance_is_drawn(seed: int, size: int, chance: float) -> None:
    weights = random_logits(seed, 1, size).clamp(min=0.0)
    assume(weights.sum() > 0)
    (token,) = draw_from_all(weights, torch.tensor([[chance]], dtype=torch.float64))
    assert weights[0, token] > 0


def test_random_numbers_depend_on_seed_and_place_alone() -> None:
    numbers = [uniform(seed, place) for seed in range(50) for place in range(50)]
    assert len(set(numbers)) == 2500
    assert all(0.0 <= number < 1.0 for number in numbers)
    assert sum(numbers) / 2500 == pytest.approx(0.5, abs=0.02)
    assert uniform(2**63 - 1, 2**40) == uniform(2**63 - 1, 2**40)


def test_the_same_seed_draws_the_same_tokens_and_another_seed_does_not() -> None:
    assert draws(temperature=1.0, seed=1) == draws(temperature=1.0, seed=1)
    assert draws(temperature=1.0, seed=1) != draws(temperature=1.0, seed=2)


@patiently
@given(
    st.lists(st.integers(0, 19), max_size=10),
    st.lists(st.integers(0, 19), max_size=10),
    st.floats(0.5, 2.0),
    st.integers(0, 2**32),
)
def test_repetition_penalty_is_hugging_faces(
    prompt: list[int], output: list[int], penalty: float, seed: int
) -> None:
    sampler = Sampler(SamplingParams(repetition_penalty=penalty), prompt)
    for token in output:
        sampler.take(token)
    logits = random_logits(seed, 1, 20)
    expected = logits
    if prompt + output:
        seen = torch.tensor([prompt + output])
        expected = RepetitionPenaltyLogitsProcessor(penalty)(seen, logits.clone())
    torch.testing.assert_close(adjusted(logits[0], sampler), expected[0])


@patiently
@given(st.lists(st.integers(0, 19), max_size=30), st.floats(-2, 2), st.floats(-2, 2))
def test_frequency_and_presence_penalties_count_the_answer_alone(
    output: list[int], frequency: float, presence: float
) -> None:
    params = SamplingParams(frequency_penalty=frequency, presence_penalty=presence)
    sampler = Sampler(params, prompt=[1, 2, 3])
    for token in output:
        sampler.take(token)
    logits = random_logits(0, 1, 20)[0]
    expected = [
        float(logits[t]) - output.count(t) * frequency - (t in output) * presence for t in range(20)
    ]
    assert adjusted(logits, sampler).tolist() == pytest.approx(expected, abs=1e-4)


def test_penalties_change_what_is_chosen_greedily() -> None:
    sampler = Sampler(SamplingParams(presence_penalty=1.5))
    assert [choose_tokens(LOGITS[None], [sampler])[0].token for _ in range(3)] == [1, 2, 1]


def test_log_probabilities_are_the_models_own() -> None:
    sampler = Sampler(
        SamplingParams(temperature=0.1, top_k=1, presence_penalty=2, logprobs=True, top_logprobs=2)
    )
    expected = LOGITS.log_softmax(0)
    chosen = [choose_tokens(LOGITS[None], [sampler])[0] for _ in range(2)]
    assert [c.token for c in chosen] == [1, 2]
    for c in chosen:
        assert c.logprob == pytest.approx(float(expected[c.token]))
        assert [token for token, _ in c.top] == [1, 2]
        assert [p for _, p in c.top] == pytest.approx(expected[[1, 2]].tolist())


def test_logits_are_left_as_they_were() -> None:
    logits = LOGITS[None].clone()
    choose_tokens(logits, [Sampler(SamplingParams(repetition_penalty=2.0), prompt=[0, 1, 2, 3])])
    assert torch.equal(logits[0], LOGITS)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"min_p": 1.5}, "min_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"frequency_penalty": 3.0}, "frequency_penalty"),
        ({"presence_penalty": float("nan")}, "presence_penalty"),
        ({"seed": -1}, "seed"),
        ({"stop": ("x", "")}, "stop"),
        ({"top_logprobs": 1}, "top_logprobs needs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs must"),
        ({"json_object": True, "json_schema": "{}"}, "exclude"),
        ({"json_object": True, "stop": ("x",)}, "stop and JSON"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(EventInvalid, match=fault):
        SamplingParams(**options)
