"""Per-user gradients against a naive loop, PEFT as the oracle of adapters, and the losses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import peft
import pytest
import torch
from tiny_model import build_tiny_model

from models.engine.load import Loaded, load
from models.learning.adapter_files import CONFIG_FILE, read_adapter, write_adapter
from models.learning.batches import EncodedAnswer, encode_answer, pad
from models.learning.clipping import clipped_sum, user_norms
from models.learning.cohort_gradient import EncodedExample, cohort_gradient
from models.learning.lora import LoraShape, Trained, new_adapter, target_modules, trained_of
from models.learning.losses import answer_log_likelihoods, correction_losses, preference_losses
from models.learning.optimizers import Optimizer, OptimizerSettings
from models.learning.user_gradients import AdaptedModel
from schemas.errors import DataInvalid, SettingsInvalid

SHAPE = LoraShape(rank=3, alpha=6.0, targets=("q_proj", "v_proj", "down_proj"))
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = build_tiny_model(tmp_path_factory.mktemp("model"))
    return load(str(folder), folder, "cpu", "float32")


@pytest.fixture
def adapted(loaded: Loaded) -> Iterator[AdaptedModel]:
    model = AdaptedModel(loaded.model, SHAPE)
    yield model
    model.close()


def some_adapter(loaded: Loaded) -> Tensors:
    """With a B that is not zero, so that A has a gradient."""
    adapter = new_adapter(loaded.model, SHAPE)
    generator = torch.Generator().manual_seed(1)
    for tensor in adapter.values():
        tensor += 0.05 * torch.randn(tensor.shape, generator=generator)
    return adapter


def answer(loaded: Loaded, question: str, text: str) -> EncodedAnswer:
    messages = [{"role": "user", "content": question}]
    return encode_answer(loaded.tokenizer, 2, messages, text, 100)


@pytest.fixture
def cohort(loaded: Loaded) -> list[list[EncodedExample]]:
    """Five users with one to three rows of different lengths, two of them rated."""
    return [
        [EncodedExample(answer(loaded, "what is a river", "water"))],
        [
            EncodedExample(answer(loaded, "where", "down to the sea")),
            EncodedExample(answer(loaded, "and documents", "prompts and answers"), rating=-0.5),
            EncodedExample(answer(loaded, "again", "again and again")),
        ],
        [EncodedExample(answer(loaded, "carries", "feedback"), rating=1.0)],
        [EncodedExample(answer(loaded, "the sea and the river and the sea", "no"))],
        [EncodedExample(answer(loaded, "x", "y")), EncodedExample(answer(loaded, "", "z"))],
    ]


def naive_gradient(adapted: AdaptedModel, adapter: Tensors, rows: list[EncodedExample]) -> Tensors:
    """One user, one row at a time, with one shared adapter and ordinary autograd."""
    total = {name: torch.zeros_like(tensor) for name, tensor in adapter.items()}
    for row in rows:
        batch = pad([row.answer], torch.device("cpu"))
        base = answer_log_likelihoods(adapted.model, batch)[0].detach()
        leaves = {name: t.detach().clone().requires_grad_() for name, t in adapter.items()}
        with adapted.using(leaves):
            likelihood, count = answer_log_likelihoods(adapted.model, batch)
        loss = (
            correction_losses(likelihood, count)
            if row.rating is None
            else preference_losses(likelihood, base, torch.tensor([row.rating]))
        )
        loss.sum().backward()
        for name, leaf in leaves.items():
            assert leaf.grad is not None
            total[name] += leaf.grad
    return total


def test_log_likelihoods_and_their_gradient_are_torchs(
    loaded: Loaded, adapted: AdaptedModel, cohort: list[list[EncodedExample]]
) -> None:
    batch = pad([row.answer for rows in cohort for row in rows], torch.device("cpu"))
    assert int((batch.targets != -100).sum()) > 32  # Several parts, the last not full.
    adapter = {name: t.requires_grad_() for name, t in some_adapter(loaded).items()}
    with adapted.using(adapter):
        found, counts = answer_log_likelihoods(adapted.model, batch)
        logits = adapted.model(
            input_ids=batch.tokens, attention_mask=batch.mask, position_ids=batch.positions
        ).logits[:, -batch.targets.shape[1] - 1 : -1]
    each = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch.targets.flatten(), ignore_index=-100, reduction="none"
    )
    expected = -each.view_as(batch.targets).sum(1)
    assert counts.tolist() == [len(row.answer.answer) for rows in cohort for row in rows]
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-4)
    weights = torch.linspace(-1.0, 2.0, len(counts))
    mine = torch.autograd.grad((weights * found).sum(), list(adapter.values()), retain_graph=True)
    theirs = torch.autograd.grad((weights * expected).sum(), list(adapter.values()))
    for one, other in zip(mine, theirs, strict=True):
        assert (one - other).abs().max() <= 1e-4 * max(1.0, float(other.abs().max()))


@pytest.mark.parametrize("rows_max", [1, 3, 16])
@pytest.mark.parametrize("norm_max", [None, 0.05, 1.0])
@pytest.mark.parametrize("trained", ["both", "b"])
def test_clipped_sums_equal_a_naive_loop(
    loaded: Loaded,
    adapted: AdaptedModel,
    cohort: list[list[EncodedExample]],
    rows_max: int,
    norm_max: float | None,
    trained: Trained,
) -> None:
    adapter = some_adapter(loaded)
    parts = trained_of(adapter, trained)
    expected = {name: torch.zeros_like(tensor) for name, tensor in parts.items()}
    norms = []
    for rows in cohort:
        gradient = naive_gradient(adapted, adapter, rows)
        gradient = {name: gradient[name] for name in parts}
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradient.values()))
        norms.append(norm)
        scale = 1.0 if norm_max is None else min(1.0, norm_max / norm)
        for name, tensor in gradient.items():
            expected[name] += scale * tensor
    found = cohort_gradient(adapted, adapter, parts, cohort, norm_max, rows_max)
    assert found.total.keys() == parts.keys()
    assert found.norms.tolist() == pytest.approx(norms, rel=1e-4)
    for name, tensor in expected.items():
        largest = max(1.0, float(tensor.abs().max()))
        assert (found.total[name] - tensor).abs().max() <= 1e-5 * largest


def test_a_row_does_not_depend_on_the_rows_beside_it(
    loaded: Loaded, adapted: AdaptedModel, cohort: list[list[EncodedExample]]
) -> None:
    adapter = some_adapter(loaded)
    together = cohort_gradient(adapted, adapter, adapter, cohort, None, 16)
    for number, rows in enumerate(cohort):
        alone = cohort_gradient(adapted, adapter, adapter, [rows], None, 16)
        assert together.losses[number] == pytest.approx(alone.losses[0], rel=1e-4)
        assert float(together.norms[number]) == pytest.approx(float(alone.norms[0]), rel=1e-4)


def test_no_user_contributes_more_than_the_norm() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = {
        "a": torch.randn(6, 4, 3, generator=generator)
        * 10.0 ** torch.arange(-3.0, 3.0)[:, None, None],
        "b": torch.randn(6, 5, generator=generator),
    }
    for user in range(6):
        own = {name: g[user : user + 1] for name, g in gradients.items()}
        total = clipped_sum(own, user_norms(own), 0.7)
        norm = math.sqrt(sum(float(t.double().square().sum()) for t in total.values()))
        assert norm <= 0.7


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("norm_max", [None, 1.0])
def test_a_gradient_that_is_not_finite_counts_as_nothing(
    bad: float, norm_max: float | None
) -> None:
    gradients = {"a": torch.tensor([[0.3, 0.4], [bad, 1.0]])}
    total = clipped_sum(gradients, user_norms(gradients), norm_max)
    assert total["a"].tolist() == pytest.approx([0.3, 0.4])


def test_a_rated_answer_moves_the_way_of_its_rating() -> None:
    base = torch.tensor([-5.0, -5.0, -5.0])
    ratings = torch.tensor([1.0, -1.0, 0.0])
    likelihoods = base.clone().requires_grad_()
    losses = preference_losses(likelihoods, base, ratings)
    assert losses.tolist() == pytest.approx([0.5, 0.5, 0.0])
    losses.sum().backward()
    assert likelihoods.grad is not None
    assert likelihoods.grad[0] < 0 < likelihoods.grad[1]
    assert likelihoods.grad[2] == 0


def test_an_adapter_is_one_of_peft(loaded: Loaded, adapted: AdaptedModel, tmp_path: Path) -> None:
    adapter = some_adapter(loaded)
    write_adapter(tmp_path / "ours", adapter, SHAPE, loaded.model.name_or_path)
    batch = pad([answer(loaded, "what is a river", "water")], torch.device("cpu"))
    with torch.no_grad(), adapted.using(adapter):
        ours = answer_log_likelihoods(adapted.model, batch)[0]
    base = answer_log_likelihoods(adapted.model, batch)[0]
    adapted.close()
    theirs = peft.PeftModel.from_pretrained(loaded.model, tmp_path / "ours")
    try:
        with torch.no_grad():
            assert torch.allclose(answer_log_likelihoods(theirs, batch)[0], ours, atol=1e-5)
        assert not torch.allclose(base, ours, atol=1e-3)
        theirs.save_pretrained(tmp_path / "theirs")
    finally:
        theirs.unload()
    read, shape = read_adapter(tmp_path / "theirs")
    assert (shape.rank, shape.alpha, set(shape.targets)) == (3, 6.0, set(SHAPE.targets))
    assert read.keys() == adapter.keys()
    assert all(torch.equal(read[name], adapter[name]) for name in adapter)


def test_an_adapter_file_is_whole_and_named_by_its_content(loaded: Loaded, tmp_path: Path) -> None:
    adapter = some_adapter(loaded)
    digest = write_adapter(tmp_path / "one", adapter, SHAPE, "tiny")
    assert digest == write_adapter(tmp_path / "two", adapter, SHAPE, "tiny")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]
    read, shape = read_adapter(tmp_path / "one")
    assert shape == SHAPE
    assert all(torch.equal(read[name], adapter[name]) for name in adapter)


def test_what_is_no_plain_adapter_is_refused(loaded: Loaded, tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="holds no LoRA adapter"):
        read_adapter(tmp_path)
    write_adapter(tmp_path / "a", some_adapter(loaded), SHAPE, "tiny")
    config = tmp_path / "a" / CONFIG_FILE
    config.write_text(config.read_text().replace('"use_dora": false', '"use_dora": true'))
    with pytest.raises(DataInvalid, match="another kind"):
        read_adapter(tmp_path / "a")
    with pytest.raises(SettingsInvalid, match="no linear layer"):
        target_modules(loaded.model, LoraShape(targets=("nothing",)))


def test_a_long_answer_keeps_its_beginning_and_a_long_prompt_its_end(loaded: Loaded) -> None:
    whole = answer(loaded, "what is a river", "water " * 5)
    messages = [{"role": "user", "content": "what is a river"}]
    short = encode_answer(loaded.tokenizer, 2, messages, "water " * 5, len(whole.answer) + 4)
    assert short.answer == whole.answer
    assert short.prompt == whole.prompt[-4:]
    shortest = encode_answer(loaded.tokenizer, 2, messages, "water " * 5, 4)
    assert shortest.answer == whole.answer[:3] and len(shortest.prompt) == 1


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_optimizers_are_torchs_and_go_on_after_a_restart(kind: str) -> None:
    settings = OptimizerSettings(kind, learning_rate=0.1)  # type: ignore[arg-type]
    ours = {"w": torch.tensor([1.0, -2.0, 3.0])}
    theirs = torch.nn.Parameter(ours["w"].clone())
    reference: torch.optim.Optimizer = (
        torch.optim.SGD([theirs], lr=0.1, momentum=0.9)
        if kind == "sgd"
        else torch.optim.Adam([theirs], lr=0.1, betas=(0.9, 0.95))
    )
    optimizer = Optimizer(settings, ours, 10)
    for step in range(6):
        gradient = torch.tensor([0.5, -1.0, 2.0]) * (step + 1)
        if step == 3:
            state = optimizer.state()
            optimizer = Optimizer(settings, ours, 10)
            optimizer.restore(state)
        optimizer.step(ours, {"w": gradient})
        theirs.grad = gradient
        reference.step()
    assert torch.allclose(ours["w"], theirs.detach(), atol=1e-6)


def test_the_learning_rate_falls_to_its_share() -> None:
    weights = {"w": torch.zeros(1)}
    optimizer = Optimizer(OptimizerSettings("sgd", 1.0, final_share=0.1), weights, 4)
    rates = []
    for _ in range(4):
        rates.append(optimizer.learning_rate)
        optimizer.step(weights, {"w": torch.zeros(1)})
    assert rates == pytest.approx([1.0, 0.7, 0.4, 0.1])
