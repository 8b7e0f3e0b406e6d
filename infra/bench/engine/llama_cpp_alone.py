"""Runs in llama-cpp-python's own environment: greedy answers, one by one. Nothing of ours is here.

Reads a job as JSON from standard input, writes tokens and seconds as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def main() -> None:
    """Answer every prompt of the job."""
    import llama_cpp  # type: ignore[import-not-found]

    job: dict[str, Any] = json.load(sys.stdin)
    threads = job["threads"] or os.cpu_count()
    model = llama_cpp.Llama(
        job["model"], n_ctx=2048, n_threads=threads, n_threads_batch=threads, verbose=False
    )
    ends = set(job["ends"])
    _answer(model, job["prompts"][0], 8, ends)
    begun = time.perf_counter()
    tokens = sum(
        _answer(model, prompt, limit, ends)
        for prompt, limit in zip(job["prompts"], job["limits"], strict=True)
    )
    json.dump({"tokens": tokens, "seconds": time.perf_counter() - begun}, sys.stdout)


def _answer(model: Any, prompt: list[int], limit: int, ends: set[int]) -> int:
    model.reset()
    for count, token in enumerate(model.generate(prompt, temp=0.0), start=1):
        if count == limit or token in ends:
            return count
    return 0


if __name__ == "__main__":
    main()
