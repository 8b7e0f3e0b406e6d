"""From a record of model-updates to answers: a real worker, killed and started again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from adapter_river import AdapterRiver, adapter_river
from stage import kill
from workers import agent_parts

from infra.supervisor import Supervisor
from streams.settings import KafkaSettings

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]


def worker(kafka: KafkaSettings, model: Path, folder: Path, **env: str) -> Supervisor:
    """One generate worker, not yet started, that keeps its adapters under `folder`."""
    (part,) = agent_parts(kafka, model, ("generate",))
    own = {"HEADWATER_GENERATE_ADAPTERS_DIR": str(folder / "adapters")}
    return Supervisor([replace(part, env={**part.env, **own, **env})], folder, deaths_max=20)


async def test_versions_come_and_go_by_records_alone(
    kafka: KafkaSettings, tiny_model: Path, tmp_path: Path
) -> None:
    supervisor = worker(kafka, tiny_model, tmp_path)
    async with adapter_river(kafka, tmp_path / "trained") as river:
        shas = {f"v{number}": river.train(f"v{number}", number) for number in range(1, 6)}
        # Broken before the worker ever saw the topic; the older one is good.
        await river.publish("v1", shas["v1"])
        await river.publish("v2", "0" * 64)

        async def story() -> None:
            base = await comes_up_with_the_newest_good_version(river)
            await refuses_what_is_broken(river)
            await rolls_back(river, shas)
            await knows_it_all_again_after_a_kill(river, supervisor)
            await adds_what_was_studied(river, shas)
            await river.send(None)
            assert (await river.until_served("base")).text != base

        await supervisor.run(story)


async def comes_up_with_the_newest_good_version(river: AdapterRiver) -> str:
    # The very first answer: a worker is not ready before.
    generation, _ = await river.ask()
    assert generation.model_version == "v1"
    (letter,) = await river.dead_letters(1)
    assert (letter.topic, letter.agent) == (river.kafka.topic_prefix + "model-updates", "generate")
    assert (letter.error, letter.offset) == ("ArtifactInvalid", 1)
    assert f"not {'0' * 64}" in letter.reason
    return generation.text


async def refuses_what_is_broken(river: AdapterRiver) -> None:
    await river.send(b"{")
    await river.publish("v1", "1" * 64)
    await river.publish("absent", "2" * 64)
    letters = await river.dead_letters(4)
    reasons = [letter.reason for letter in letters[1:]]
    assert "Not a valid ModelUpdate" in reasons[0]
    assert "weights of another sha256" in reasons[1]
    assert "has no adapter_config.json" in reasons[2]
    assert (await river.ask())[0].model_version == "v1"


async def rolls_back(river: AdapterRiver, shas: dict[str, str]) -> None:
    before = await river.until_served("v1")
    await river.publish("v3", shas["v3"])
    after = await river.until_served("v3")
    assert after.text != before.text
    await river.publish("v1", shas["v1"], origin="rollback")
    assert (await river.until_served("v1")).text == before.text


async def adds_what_was_studied(river: AdapterRiver, shas: dict[str, str]) -> None:
    await river.publish("v4", shas["v4"], "documents", adapter="documents")
    await river.until_served("v1+v4")
    await river.publish("v5", shas["v5"])
    await river.until_served("v5+v4")
    await river.send(None, "documents")
    await river.until_served("v5")


async def knows_it_all_again_after_a_kill(river: AdapterRiver, supervisor: Supervisor) -> None:
    # Its offset in the group is committed once a second: what was buried stays buried.
    await asyncio.sleep(2)
    await kill(supervisor, "generate")
    generation, _ = await river.ask()
    assert generation.model_version == "v1"
    assert len(await river.dead_letters()) == 4
