"""The live page in a real browser: a person asks, reads, rates, and sees the figures move."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from gateways import gateways
from playwright.sync_api import Browser, Page, expect, sync_playwright
from workers import Workers

from agents.learning.model_change import publish
from schemas import codec, headers, ids
from schemas.events import (
    LEARNING_ROUND,
    QUALITY,
    Event,
    FederatedRound,
    ModelUpdate,
    Statistic,
)
from schemas.topics import ANALYTICS, FEDERATED_ROUNDS, MODEL_UPDATES, Topic
from streams.producer import Outgoing, Producer
from streams.settings import KafkaSettings
from streams.subscription import Subscription

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}"),
]

T = TypeVar("T")

PHONE = {"width": 390, "height": 844}
TIMEOUT_MS = 30_000
# One panel slides away while the next one comes.
SLIDE_MS = 400
WITH_PAGE = {"HEADWATER_GATEWAY_PAGE": "true"}


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Containers allow no sandbox of its own.
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(page: Page, url: str, key: str) -> None:
    """The page of a gateway, with a key typed in."""
    page.set_default_timeout(TIMEOUT_MS)
    expect.set_options(timeout=TIMEOUT_MS)
    page.goto(url)
    page.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")


def fits(page: Page) -> bool:
    """Whether nothing is wider than a phone, once a panel has slid into its place."""
    page.wait_for_timeout(SLIDE_MS)
    return bool(page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"])


def background(page: Page) -> str:
    found: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return found


def offsets(page: Page, topic: str) -> int:
    """What the river's table says of a topic."""
    row = page.get_by_role("row", name=re.compile(rf"^{topic} "))
    return int(row.get_by_role("cell").nth(1).inner_text())


def test_a_person_asks_reads_and_rates_on_a_phone_by_keyboard(
    river: KafkaSettings, agents: Workers, browser: Browser, tmp_path: Path
) -> None:
    done = FederatedRound("round-page", "finished", "default", 1_790_000_000_000, clients=3)
    elsewhere(tell(river, FEDERATED_ROUNDS, done.round_id, [done]))
    with gateways(river, tmp_path, env=WITH_PAGE) as found:
        page = browser.new_page(viewport=PHONE, color_scheme="dark")
        opened(page, found.url(), "hw-unknown")
        expect(page.get_by_text("That key is not known.")).to_be_visible()
        opened(page, found.url(), found.keys["app"])

        page.get_by_role("tab", name="River").click()
        expect(page.get_by_role("row", name=re.compile("^feedback "))).to_be_visible()
        before = offsets(page, "feedback")
        add_a_document(page)
        ask_and_rate(page)
        page.get_by_role("tab", name="River").click()
        for _ in range(100):
            if offsets(page, "feedback") == before + 2:
                break
            page.wait_for_timeout(100)
        assert offsets(page, "feedback") == before + 2
        assert fits(page)
        page.get_by_role("tab", name="Learning").click()
        expect(page.get_by_role("row", name=re.compile("round-page finished 3"))).to_be_visible()
        assert fits(page)
        delete_the_document(page)
        switch_the_light_on(page)


def add_a_document(page: Page) -> None:
    page.get_by_role("tab", name="Documents").click()
    page.get_by_label("Id").fill("lakes/page")
    page.get_by_label("Text").fill("Lake Page is 12 m deep and very cold.")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("cell", name="retrievable")).to_be_visible()
    assert fits(page)


def delete_the_document(page: Page) -> None:
    """The field still names it."""
    page.get_by_role("tab", name="Documents").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("cell", name="deleted")).to_be_visible()
    page.get_by_role("button", name="Look up").click()
    expect(page.get_by_role("cell", name="not there")).to_be_visible()


def ask_and_rate(page: Page) -> None:
    page.get_by_role("tab", name="Chat").click()
    page.get_by_label("Ask something").focus()
    page.keyboard.type("How deep is Lake Page?")
    page.keyboard.press("Enter")
    thumb = page.get_by_label("Good answer")
    expect(thumb).to_be_visible()
    page.get_by_role("button", name="lakes/page").press("Enter")
    expect(page.get_by_text("12 m deep and very cold")).to_be_visible()
    page.get_by_role("button", name="Why this answer").press("Enter")
    expect(page.get_by_text(re.compile(r"^\[1\] score .*: meaning "))).to_be_visible()
    assert fits(page)
    thumb.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Thank you")).to_be_visible()
    page.get_by_label("It should have said").fill("12 m.")
    page.keyboard.press("Enter")


def switch_the_light_on(page: Page) -> None:
    body = page.locator("body")
    expect(body).to_have_class(re.compile("body--dark"))
    night = background(page)
    page.emulate_media(color_scheme="light")
    expect(body).to_have_class(re.compile("body--light"))
    assert background(page) != night


@pytest.mark.long
def test_an_operator_rolls_back_and_others_do_not(
    kafka: KafkaSettings, browser: Browser, tmp_path: Path
) -> None:
    update = ModelUpdate("default", "default-1", "online", 1_790_000_000_000, "base")
    elsewhere(publish(kafka, update, "/tests"))
    elsewhere(tell(kafka, ANALYTICS, QUALITY, windows(0.5, 0.5, -0.4)))
    labels = {"adapter": "default", "model_version": "default-1", "released": "true"}
    spent = {"epsilon": 1.5, "epsilon_limit": 8.0}
    done = Statistic(LEARNING_ROUND, 1_790_000_000_000, 1_790_000_000_000, labels, spent)
    elsewhere(tell(kafka, ANALYTICS, LEARNING_ROUND, [done]))
    with gateways(kafka, tmp_path, env=WITH_PAGE) as found:
        for key in ("app", "operator"):
            page = browser.new_page()
            opened(page, found.url(), found.keys[key])
            page.get_by_role("tab", name="Learning").click()
            expect(page.get_by_text("Serving: default-1 (default)")).to_be_visible()
            expect(page.get_by_role("cell", name="0.2000")).to_be_visible()
            expect(page.get_by_text("ε 1.500 of 8.000 spent")).to_be_visible()
            expect(page.locator("canvas").first).to_be_visible()
            page.get_by_role("button", name="Roll back").click()
            if key == "app":
                expect(page.get_by_text("lacks the scope")).to_be_visible()
                continue
            page.get_by_role("button", name="Yes").click()
            expect(page.get_by_text("Serving: base (default)")).to_be_visible()
    last = elsewhere(updates(kafka))[-1]
    assert (last.model_version, last.origin) == ("base", "rollback")


def elsewhere(work: Coroutine[Any, Any, T]) -> T:
    """Playwright has a loop in this thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def tell(kafka: KafkaSettings, topic: Topic, key: str, events: Sequence[Event]) -> None:
    producer = Producer(kafka)
    for event in events:
        made = headers.make_headers(topic, ids.new_id("event"), "/tests")
        await producer.send(Outgoing(topic, key, codec.checked(topic, event), made))
    await producer.close()


def windows(*rewards: float) -> list[Statistic]:
    """Windows as Flink tells them, with two ratings each."""
    labels = {"model_version": "default-1"}
    ends_ms = [1_790_000_060_000 + 60_000 * number for number in range(len(rewards))]
    return [
        Statistic(
            QUALITY, end_ms - 60_000, end_ms, labels, {"reward_mean": reward, "feedback": 2.0}
        )
        for end_ms, reward in zip(ends_ms, rewards, strict=True)
    ]


async def updates(kafka: KafkaSettings) -> list[ModelUpdate]:
    async with Subscription(kafka, MODEL_UPDATES, since="earliest") as subscription:
        return [
            codec.decode(MODEL_UPDATES, record.value or b"")
            async for record in subscription.present()
        ]
