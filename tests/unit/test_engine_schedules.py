"""Whatever the schedule, an answer is the one that Hugging Face's generate gives alone."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_model import build_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from models.engine.options import TorchEngineOptions
from models.engine.protocol import GenerationRequest, SamplingParams
from models.engine.torch_engine import TorchEngine
from schemas.errors import ModelUnavailable

VERSIONS = ["base", "a", "b"]
TARGETS = {"a": ["q_proj", "v_proj"], "b": ["k_proj", "o_proj", "gate_proj", "down_proj"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build_tiny_model(tmp_path_factory.mktemp("tiny"))
    for seed, (name, targets) in enumerate(TARGETS.items()):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        config = LoraConfig(r=2 + seed, lora_alpha=8, target_modules=targets)
        adapted = get_peft_model(model, config)
        for key, tensor in adapted.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(tensor, std=0.3)
        adapted.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def expected() -> dict[tuple[str, str, int], str]:
    """A cache of what generate answers."""
    return {}


def tiny_engine(
    folder: Path, kv_tokens: int, prompt_tokens_step: int, lanes: int = 1
) -> TorchEngine:
    token_bytes = 2 * 2 * 2 * 16 * 4  # layers, keys and values, key heads, head size, float32
    return TorchEngine(
        TorchEngineOptions(
            cache_dir=folder.parent,
            model=str(folder),
            slots=4,
            context_tokens_max=512,
            kv_bytes_max=kv_tokens * token_bytes,
            prompt_tokens_step=prompt_tokens_step,
            device="cpu",
            dtype="float32",
            lanes=lanes,
        )
    )


def by_generate(folder: Path, version: str, question: str, max_tokens: int) -> str:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if version != "base":
        model = PeftModel.from_pretrained(model, folder / version)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    tokens = model.generate(**prompt, max_new_tokens=max_tokens, do_sample=False, eos_token_id=ends)
    new = tokens[0, prompt["input_ids"].shape[1] :]
    return str(tokenizer.decode(new, skip_special_tokens=True))


async def ask(
    engine: TorchEngine, after_s: float, version: str, question: str, max_tokens: int
) -> tuple[str, set[str]]:
    await asyncio.sleep(after_s)
    request = GenerationRequest(
        "r",
        ({"role": "user", "content": question},),
        SamplingParams(max_tokens=max_tokens),
        model_version=version,
    )
    async with aclosing(engine.stream(request)) as stream:
        pieces = [piece async for piece in stream]
    return "".join(p.text for p in pieces), {p.model_version for p in pieces}


REQUESTS = st.tuples(
    st.sampled_from([0.0, 0.01, 0.05]),
    st.sampled_from(VERSIONS),
    st.sampled_from(["hello", "down to the sea " * 25, "down to the sea " * 25 + "again?", "🌊"]),
    st.sampled_from([1, 20, 120]),
)


@settings(max_examples=12, deadline=None)
@given(
    requests=st.lists(REQUESTS, min_size=1, max_size=7),
    kv_tokens=st.sampled_from([1024, 1300, 2100, 4096]),
    prompt_tokens_step=st.sampled_from([7, 64, 512]),
    lanes=st.sampled_from([1, 2]),
)
def test_answers_are_exact_for_any_arrivals_neighbours_preemptions_and_adapters(
    folder: Path,
    expected: dict[tuple[str, str, int], str],
    requests: list[tuple[float, str, str, int]],
    kv_tokens: int,
    prompt_tokens_step: int,
    lanes: int,
) -> None:
    async def serve() -> list[tuple[str, set[str]]]:
        engine = tiny_engine(folder, kv_tokens, prompt_tokens_step, lanes)
        await engine.start()
        try:
            for version in VERSIONS[1:]:
                await engine.load_adapter(version, version, folder / version)
            answers = await asyncio.gather(*(ask(engine, *request) for request in requests))
            while engine.running:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            assert engine.metrics.get_sample_value("headwater:kv_cache_usage_perc") == 0
            return answers
        finally:
            await engine.close()

    answers = asyncio.run(serve())
    for (_, version, question, max_tokens), (text, versions) in zip(requests, answers, strict=True):
        key = (version, question, max_tokens)
        if key not in expected:
            expected[key] = by_generate(folder, version, question, max_tokens)
        assert text == expected[key]
        assert versions == {version}


@pytest.mark.asyncio
async def test_memory_that_runs_out_preempts_and_the_streams_go_on(folder: Path) -> None:
    engine = tiny_engine(folder, 1300, 64)
    await engine.start()
    question = "down to the sea " * 25
    asked = [ask(engine, 0.0, "base", question, 300) for _ in range(4)]
    answers = await asyncio.gather(*asked)
    assert engine.metrics.get_sample_value("headwater:num_preemptions_total") > 0
    assert {text for text, _ in answers} == {by_generate(folder, "base", question, 300)}
    await engine.close()


@pytest.mark.asyncio
async def test_a_swap_changes_new_answers_only_and_serves_no_stale_prefix(folder: Path) -> None:
    engine = tiny_engine(folder, 4096, 512)
    await engine.start()
    question = "down to the sea " * 25
    messages = ({"role": "user", "content": question},)

    async def live(max_tokens: int) -> tuple[str, set[str]]:
        request = GenerationRequest("r", messages, SamplingParams(max_tokens=max_tokens))
        async with aclosing(engine.stream(request)) as stream:
            pieces = [piece async for piece in stream]
        return "".join(p.text for p in pieces), {p.model_version for p in pieces}

    before = asyncio.create_task(live(120))
    while engine.running == 0:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    await engine.load_adapter("default", "a", folder / "a")
    after = await live(20)
    assert await before == (by_generate(folder, "base", question, 120), {"base"})
    assert after == (by_generate(folder, "a", question, 20), {"a"})
    # Rolling back is one more swap.
    await engine.load_adapter("default", "base", folder)
    assert await live(20) == (by_generate(folder, "base", question, 20), {"base"})
    assert engine.metrics.get_sample_value("headwater:prefix_cache_hits_total") > 0
    await engine.close()


@pytest.mark.asyncio
async def test_a_broken_adapter_is_refused_and_the_old_version_goes_on(
    folder: Path, tmp_path: Path
) -> None:
    engine = tiny_engine(folder, 1024, 512)
    await engine.start()
    await engine.load_adapter("default", "a", folder / "a")
    (tmp_path / "adapter_config.json").write_text((folder / "a/adapter_config.json").read_text())
    (tmp_path / "adapter_model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ModelUnavailable):
        await engine.load_adapter("default", "broken", tmp_path)
    assert engine.model_version == "a"
    await engine.close()
