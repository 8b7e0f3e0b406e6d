"""The others: Hugging Face's generate, alone and in static batches, its continuous batching, and
llama.cpp."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from infra.bench.engine.requests import Asked, Measured, Task
from models.cache import user_cache_dir
from models.engine.chat import encode_chat, end_tokens, load_tokenizer
from models.engine.load import Loaded, load
from models.weights import packaged_gguf, resolve_model

# The environment that `make llama-server` builds.
LLAMA_PYTHON: Final = Path(".headwater/llama-cpp/bin/python")


def static_batches(task: Task) -> Measured:
    """`generate` over batches of `concurrency` requests in the order of their arrival.

    A batch takes as long as its longest answer; each answer counts up to its own limit. With a
    concurrency of 1 it is `generate` for each request.
    """
    loaded = _loaded()
    prompts = _prompts(loaded.tokenizer, task.requests)
    limits = [asked.max_tokens for asked in task.requests]
    _generate(loaded, _prompts(loaded.tokenizer, task.warm_up), 8)
    begun = time.perf_counter()
    tokens = 0
    for first in range(0, len(prompts), task.concurrency):
        some = slice(first, first + task.concurrency)
        answers = _generate(loaded, prompts[some], max(limits[some]))
        tokens += sum(
            _useful(loaded, answer, limit)
            for answer, limit in zip(answers, limits[some], strict=True)
        )
    return Measured(task.contestant, task.concurrency, tokens, time.perf_counter() - begun)


def transformers_batching(task: Task) -> Measured:
    """transformers' own continuous batching; each client asks again when it has its answer."""
    loaded = _loaded()
    model: Any = loaded.model
    prompts = _prompts(loaded.tokenizer, task.requests)
    config = GenerationConfig(
        max_new_tokens=max(asked.max_tokens for asked in task.requests),
        do_sample=False,
        eos_token_id=sorted(loaded.end_tokens),
        pad_token_id=min(loaded.end_tokens),
    )
    tokens = 0
    with model.continuous_batching_context_manager(
        generation_config=config, block=True, timeout=5
    ) as manager:
        waiting = list(zip(prompts, task.requests, strict=True))[::-1]
        open_requests = 0
        begun = time.perf_counter()
        while waiting or open_requests:
            while waiting and open_requests < task.concurrency:
                prompt, asked = waiting.pop()
                manager.add_request(prompt, max_new_tokens=asked.max_tokens)
                open_requests += 1
            result = manager.get_result(timeout=1)
            if result is None and not manager.is_running():
                raise RuntimeError("transformers' continuous batching has ended by itself")
            if result is not None and result.is_finished():
                if result.error is not None:
                    raise RuntimeError(result.error)
                tokens += len(result.generated_tokens)
                open_requests -= 1
        seconds = time.perf_counter() - begun
    return Measured(task.contestant, task.concurrency, tokens, seconds)


def llama_cpp(task: Task) -> Measured:
    """llama.cpp in process, one request after the other, on the GGUF file of the same model."""
    if not LLAMA_PYTHON.exists():
        return Measured(task.contestant, 1, 0, 0.0, note="not there: run `make llama-server`")
    folder = resolve_model("smollm2", user_cache_dir())
    tokenizer = load_tokenizer(folder)
    job = {
        "model": str(packaged_gguf()),
        "threads": task.threads,
        "prompts": _prompts(tokenizer, task.requests),
        "limits": [asked.max_tokens for asked in task.requests],
        "ends": sorted(end_tokens(tokenizer, GenerationConfig.from_pretrained(folder))),
    }
    script = Path(__file__).with_name("llama_cpp_alone.py")
    done = subprocess.run(
        [LLAMA_PYTHON, script], input=msgspec.json.encode(job), capture_output=True, check=True
    )
    told = msgspec.json.decode(done.stdout)
    return Measured(task.contestant, 1, told["tokens"], told["seconds"])


def _loaded() -> Loaded:
    return load("smollm2", user_cache_dir(), "auto", "auto")


def _prompts(tokenizer: PreTrainedTokenizerBase, requests: Sequence[Asked]) -> list[list[int]]:
    return [encode_chat(tokenizer, tuple(asked.messages)) for asked in requests]


@torch.inference_mode()
def _generate(loaded: Loaded, prompts: Sequence[list[int]], tokens: int) -> list[list[int]]:
    """New tokens of each prompt."""
    longest = max(map(len, prompts))
    pad = min(loaded.end_tokens)
    model: Any = loaded.model
    rows = [[pad] * (longest - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    output = model.generate(
        torch.tensor(rows, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        max_new_tokens=tokens,
        do_sample=False,
        eos_token_id=sorted(loaded.end_tokens),
        pad_token_id=pad,
    )
    new: list[list[int]] = output[:, longest:].tolist()
    return new


def _useful(loaded: Loaded, answer: Sequence[int], limit: int) -> int:
    """Tokens up to the end token, or to the limit."""
    for count, token in enumerate(answer[:limit], start=1):
        if token in loaded.end_tokens:
            return count
    return min(len(answer), limit)
