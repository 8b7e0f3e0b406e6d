"""Versions of adapters at a server with vLLM's endpoints: load, swap, roll back, unload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fake_openai import MODEL, FakeServer

from models.engine.protocol import GenerationRequest, SamplingParams
from models.engine.remote.engine import RemoteEngine
from models.engine.remote.options import RemoteEngineOptions
from schemas.errors import ModelBusy, ModelUnavailable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "adapter_config.json").write_text("{}")
    return tmp_path


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest_asyncio.fixture
async def engine(server: FakeServer) -> AsyncIterator[RemoteEngine]:
    async with server.served() as url:
        engine = RemoteEngine(RemoteEngineOptions(url=url))
        await engine.start()
        yield engine
        await engine.close()


def request(max_tokens: int = 5, **options: Any) -> GenerationRequest:
    messages = ({"role": "user", "content": "the river"},)
    return GenerationRequest("r", messages, SamplingParams(max_tokens=max_tokens), **options)


async def answering(engine: RemoteEngine, server: FakeServer, **options: Any) -> str:
    """The model that the server was asked for."""
    async with aclosing(engine.stream(request(**options))) as stream:
        assert [piece async for piece in stream][-1].finish_reason == "length"
    return str(server.requests[-1]["model"])


@pytest.mark.asyncio
async def test_new_answers_come_from_the_loaded_version_and_open_ones_go_on(
    engine: RemoteEngine, server: FakeServer, folder: Path
) -> None:
    async with aclosing(engine.stream(request(50))) as old:
        await anext(old)
        await engine.load_adapter("default", "v1", folder)
        assert engine.model_version == "v1"
        assert await answering(engine, server) == "default@v1"
        assert [piece async for piece in old][-1].completion_tokens == 50
    assert server.requests[0]["model"] == MODEL


@pytest.mark.asyncio
async def test_a_broken_version_is_refused_and_the_old_one_goes_on(
    engine: RemoteEngine, server: FakeServer, folder: Path
) -> None:
    await engine.load_adapter("default", "v1", folder)
    with pytest.raises(ModelUnavailable, match=r"default@v2.*No adapter found"):
        await engine.load_adapter("default", "v2", folder / "absent")
    assert engine.model_version == "v1"
    assert await answering(engine, server) == "default@v1"


@pytest.mark.asyncio
async def test_a_server_without_the_endpoints_says_how_to_get_them(
    engine: RemoteEngine, server: FakeServer, folder: Path
) -> None:
    server.loads_adapters = False
    with pytest.raises(ModelUnavailable, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        await engine.load_adapter("default", "v1", folder)
    assert await answering(engine, server) == MODEL


@pytest.mark.asyncio
async def test_rolling_back_is_a_switch(
    engine: RemoteEngine, server: FakeServer, folder: Path
) -> None:
    await engine.load_adapter("default", "v1", folder)
    await engine.load_adapter("default", "v2", folder)
    await engine.load_adapter("default", "v1", folder)
    assert await answering(engine, server) == "default@v1"
    assert list(server.adapters) == ["default@v1", "default@v2"]


@pytest.mark.asyncio
async def test_the_server_keeps_the_last_versions_only(
    engine: RemoteEngine, server: FakeServer, folder: Path
) -> None:
    for number in range(7):
        await engine.load_adapter("default", f"v{number}", folder)
    async with asyncio.timeout(5):
        while len(server.adapters) > 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert list(server.adapters) == [f"default@v{number}" for number in (3, 4, 5, 6)]
    # The model without an adapter needs no folder and no server.
    await engine.load_adapter("default", "base", None)
    assert await answering(engine, server) == MODEL
    with pytest.raises(ModelUnavailable, match="not loaded"):
        await engine.load_adapter("default", "v0", None)


@pytest.mark.asyncio
async def test_unloading_waits_for_open_answers_and_gives_way_to_the_base(
    engine: RemoteEngine, server: FakeServer, folder: Path
) -> None:
    await engine.load_adapter("default", "v1", folder)
    async with aclosing(engine.stream(request(50))) as old:
        await anext(old)
        unloading = asyncio.create_task(engine.unload_adapter("default", "v1"))
        await asyncio.sleep(0.01)
        assert await answering(engine, server) == MODEL
        assert (engine.model_version, list(server.adapters)) == ("base", ["default@v1"])
        assert [piece async for piece in old][-1].completion_tokens == 50
    await unloading
    assert server.adapters == {}
    # What is not there needs no unloading.
    await engine.unload_adapter("default", "v1")


@pytest.mark.asyncio
async def test_a_version_that_went_live_again_while_it_was_unloaded_stays(
    engine: RemoteEngine, server: FakeServer, folder: Path
) -> None:
    await engine.load_adapter("default", "v1", folder)
    async with aclosing(engine.stream(request(50))) as old:
        await anext(old)
        await engine.load_adapter("default", "v2", folder)
        unloading = [asyncio.create_task(engine.unload_adapter("default", "v1")) for _ in range(2)]
        await asyncio.sleep(0.01)
        await engine.load_adapter("default", "v1", folder)
    await asyncio.gather(*unloading)
    assert await answering(engine, server) == "default@v1"
    assert list(server.adapters) == ["default@v1", "default@v2"]


@pytest.mark.asyncio
async def test_each_adapter_has_a_live_version_of_its_own(
    engine: RemoteEngine, server: FakeServer, folder: Path
) -> None:
    await engine.load_adapter("default", "v1", folder)
    await engine.load_adapter("tone", "w1", folder)
    assert await answering(engine, server) == "default@v1"
    assert await answering(engine, server, adapter="tone") == "tone@w1"
    assert await answering(engine, server, adapter="other") == MODEL
    with engine.pinned("tone") as version:
        unloading = asyncio.create_task(engine.unload_adapter("tone", version))
        await asyncio.sleep(0.01)
        assert await answering(engine, server, adapter="tone") == MODEL
        pinned = await answering(engine, server, adapter="tone", model_version=version)
        assert pinned == "tone@w1"
    await unloading
    assert list(server.adapters) == ["default@v1"]


@pytest.mark.asyncio
async def test_a_server_that_is_busy_may_load_it_later(
    engine: RemoteEngine, server: FakeServer, folder: Path
) -> None:
    server.busy = True
    with pytest.raises(ModelBusy, match="status 503"):
        await engine.load_adapter("default", "v1", folder)
    server.busy = False
    await engine.load_adapter("default", "v1", folder)
    assert await answering(engine, server) == "default@v1"


@pytest.mark.asyncio
async def test_a_server_that_restarted_gets_its_version_back(
    engine: RemoteEngine, server: FakeServer, folder: Path
) -> None:
    await engine.load_adapter("default", "v1", folder)
    server.adapters.clear()
    assert await answering(engine, server) == "default@v1"
    assert list(server.adapters) == ["default@v1"]


@pytest.mark.asyncio
async def test_a_version_that_another_replica_has_loaded_is_used(
    engine: RemoteEngine, server: FakeServer, folder: Path
) -> None:
    server.adapters["default@v1"] = str(folder)
    await engine.load_adapter("default", "v1", folder)
    assert await answering(engine, server) == "default@v1"
