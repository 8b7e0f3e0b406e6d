"""Which engine a generate worker answers with."""

from __future__ import annotations

import logging

from agents.settings import GenerateSettings, RemoteEngineSettings
from models.engine.options import TorchEngineOptions
from models.engine.protocol import Engine
from models.engine.remote.engine import RemoteEngine
from models.engine.remote.options import RemoteEngineOptions
from streams.settings import load


def make_engine(settings: GenerateSettings) -> Engine:
    """The engine that the settings name, not yet started. Raises SettingsInvalid."""
    return _remote(settings) if settings.engine == "remote" else _local(settings)


def _local(settings: GenerateSettings) -> Engine:
    # Imported late: torch takes a second and much memory, for nothing where the engine is remote.
    from models.engine.torch_engine import TorchEngine

    return TorchEngine(
        TorchEngineOptions(
            cache_dir=settings.cache_dir,
            model=settings.model,
            slots=settings.slots,
            context_tokens_max=settings.context_tokens_max,
            kv_bytes_max=None if settings.kv_mib_max is None else settings.kv_mib_max << 20,
            prompt_tokens_step=settings.prompt_tokens_step,
            guesses_max=settings.guesses_max,
            weights=settings.weights,
            adapters_max=settings.adapters_max,
            adapter_rank_max=settings.adapter_rank_max,
            device=settings.device,
            dtype=settings.dtype,
            threads=settings.threads,
            lanes=settings.lanes,
            cuda_graphs=settings.cuda_graphs,
            compile=settings.compile,
        )
    )


def _remote(settings: GenerateSettings) -> RemoteEngine:
    # It would log a line for every request.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    remote = load(RemoteEngineSettings)
    return RemoteEngine(
        RemoteEngineOptions(
            url=remote.url,
            # A key from a file often ends in a line break.
            api_key=remote.api_key.get_secret_value().strip() if remote.api_key else "",
            model=remote.model or "",
            server=remote.server,
            tokenizer=remote.tokenizer or "",
            cache_dir=settings.cache_dir,
            context_tokens_max=settings.context_tokens_max,
            requests_max=remote.requests_max,
            start_timeout_s=remote.start_timeout_s,
            connect_timeout_s=remote.connect_timeout_s,
            first_token_timeout_s=remote.first_token_timeout_s,
            token_timeout_s=remote.token_timeout_s,
            retry_for_s=remote.retry_for_s,
        )
    )
