"""What the engine measures of itself, under vLLM's names with our prefix and their meanings."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from models.engine.batch_model import Work
from models.engine.protocol import METRICS_PREFIX, FinishReason
from models.engine.sequence import Sequence as Request

_TOKEN_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0)
_REQUEST_BUCKETS_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_COUNT_BUCKETS: Final = (1, 8, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class EngineMetrics:
    """Every metric has a registry of the engine's own: `registry`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.first_token_s = self._histogram(
            "time_to_first_token_seconds", "From arrival to the first token.", _REQUEST_BUCKETS_S
        )
        self.inter_token_s = self._histogram(
            "inter_token_latency_seconds", "From a token to the next.", _TOKEN_BUCKETS_S
        )
        self.queue_s = self._histogram(
            "request_queue_time_seconds", "From arrival to the start.", _REQUEST_BUCKETS_S
        )
        self.prefill_s = self._histogram(
            "request_prefill_time_seconds", "From the start to the first token.", _REQUEST_BUCKETS_S
        )
        self.decode_s = self._histogram(
            "request_decode_time_seconds", "From the first token to the last.", _REQUEST_BUCKETS_S
        )
        self.request_s = self._histogram(
            "e2e_request_latency_seconds", "From arrival to the last token.", _REQUEST_BUCKETS_S
        )
        self.step_tokens = self._histogram(
            "iteration_tokens_total", "Tokens that one pass read.", _COUNT_BUCKETS
        )
        self.step_s = self._histogram("iteration_seconds", "Time of a pass.", _TOKEN_BUCKETS_S)
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens read or reused.")
        self.generation_tokens = self._counter("generation_tokens", "Tokens generated.")
        self.prefix_tokens = self._counter(
            "prefix_cache_hits", "Prompt tokens whose keys and values were found."
        )
        self.prefix_queries = self._counter(
            "prefix_cache_queries", "Prompt tokens that were looked up."
        )
        self.preemptions = self._counter("num_preemptions", "Requests that gave their place up.")
        self.draft_tokens = self._counter("spec_decode_num_draft_tokens", "Tokens guessed.")
        self.accepted_tokens = self._counter(
            "spec_decode_num_accepted_tokens", "Guessed tokens that were right."
        )
        self.requests = Counter(
            f"{METRICS_PREFIX}request_success",
            "Requests that ended, by reason.",
            ["finished_reason"],
            registry=self.registry,
        )

    def watch(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """A gauge that is read when somebody asks."""
        Gauge(f"{METRICS_PREFIX}{name}", meaning, registry=self.registry).set_function(read)

    def step(self, works: Sequence[Work], took_s: float) -> None:
        """One pass."""
        self.step_tokens.observe(sum(len(work.tokens) for work in works))
        self.step_s.observe(took_s)

    def token(self, request: Request) -> None:
        """A request got a token."""
        now_s = time.monotonic()
        self.generation_tokens.inc()
        if request.completion_tokens == 0:
            self.prompt_tokens.inc(len(request.prompt))
            self.first_token_s.observe(now_s - request.arrived_s)
            self.prefill_s.observe(now_s - request.started_s)
            request.first_token_s = now_s
        else:
            self.inter_token_s.observe(now_s - request.last_token_s)
        request.last_token_s = now_s

    def finished(self, request: Request, reason: FinishReason) -> None:
        """A request ended by itself."""
        self.requests.labels(reason).inc()
        if request.completion_tokens:
            self.decode_s.observe(request.last_token_s - request.first_token_s)
            self.request_s.observe(request.last_token_s - request.arrived_s)

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(
            f"{METRICS_PREFIX}{name}", meaning, buckets=buckets, registry=self.registry
        )

    def _counter(self, name: str, meaning: str) -> Counter:
        return Counter(f"{METRICS_PREFIX}{name}", meaning, registry=self.registry)
