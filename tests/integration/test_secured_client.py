"""The security settings reach every client of ours: SDK, admin, transactional writer, Faust."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from secured import Secured, secured

from headwater import Client
from infra.freshness import Freshness
from infra.river import agent_part
from infra.supervisor import Supervisor
from schemas.errors import NotAuthorised
from streams.admin import create_topics
from streams.settings import KafkaSettings

__all__ = ["secured"]
pytestmark = [pytest.mark.integration, pytest.mark.asyncio]


def certificate_env(secured: Secured, common_name: str) -> dict[str, str]:
    """The documented variables for a client that shows a certificate."""
    config = secured.with_certificate(common_name)
    return {
        "HEADWATER_KAFKA_BOOTSTRAP": str(config["bootstrap.servers"]),
        "HEADWATER_KAFKA_SECURITY_PROTOCOL": "SSL",
        "HEADWATER_KAFKA_CA_FILE": str(config["ssl.ca.location"]),
        "HEADWATER_KAFKA_CERT_FILE": str(config["ssl.certificate.location"]),
        "HEADWATER_KAFKA_KEY_FILE": str(config["ssl.key.location"]),
    }


def login_settings(secured: Secured, user: str, password: str) -> KafkaSettings:
    config = secured.with_login(user, password)
    return KafkaSettings.model_validate(
        {
            "bootstrap": config["bootstrap.servers"],
            "security_protocol": "SASL_SSL",
            "username": user,
            "password": password,
            "ca_file": config["ssl.ca.location"],
            "connect_timeout_s": 5.0,
        }
    )


async def on_broker(secured: Secured, folder: Path, work: Callable[[], Awaitable[None]]) -> None:
    await Supervisor([secured.node.part()], folder / "broker").run(work)


async def test_the_river_runs_over_mutual_tls(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = certificate_env(secured, "operator")
    with monkeypatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        kafka = KafkaSettings()
    parts = [replace(agent_part(name, env), after=()) for name in ("ingest", "retrieve")]

    async def publish_and_wait() -> None:
        async with Client(kafka) as client:
            freshness = Freshness(client)
            await freshness.open()
            await client.publish_document("Behind locks.", document_id="locked")
            assert [found async for found, _ in freshness.of(["locked"])] == ["locked"]
            await freshness.close()

    async def work() -> None:
        await asyncio.to_thread(create_topics, kafka)
        await Supervisor(parts, tmp_path / "agents").run(publish_and_wait)

    await on_broker(secured, tmp_path, work)


async def test_who_may_not_is_told_so(secured: Secured, tmp_path: Path) -> None:
    operator = KafkaSettings.model_validate(
        {
            name.removeprefix("HEADWATER_KAFKA_").lower(): value
            for name, value in certificate_env(secured, "operator").items()
        }
    )

    async def work() -> None:
        await asyncio.to_thread(create_topics, operator)
        with pytest.raises(NotAuthorised, match="HEADWATER_KAFKA_SECURITY_PROTOCOL"):
            async with Client(login_settings(secured, "stranger", "wrong")):
                pass
        # A known user without any rule sees no topics.
        async with Client(login_settings(secured, "stranger", "s-secret")) as client:
            with pytest.raises(NotAuthorised, match="refused access"):
                await client.publish_document("Not allowed.")

    await on_broker(secured, tmp_path, work)
