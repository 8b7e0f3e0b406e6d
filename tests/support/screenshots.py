"""Pictures of the page of a river that runs, taken in headless Chromium: `make screenshots`.

Run `make demo` first, in another terminal: its documents, answers and versions are what is seen.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

CHROMIUM = "/usr/bin/chromium"
DESK = ViewportSize(width=1000, height=760)
PHONE = ViewportSize(width=390, height=844)
TIMEOUT_MS = 120_000
# Until the figures of a tab have come, and its chart is drawn.
SETTLE_MS = 8_000
QUESTION = "What does textwrap.dedent do?"


def main() -> None:
    """Write the four pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--folder", type=Path, default=Path("docs"))
    given = parser.parse_args()
    with sync_playwright() as playwright:
        # Containers allow no sandbox of its own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        folder: Path = given.folder
        chat(opened(browser, given.url, DESK, "light"), folder / "page-chat.png")
        chat(opened(browser, given.url, PHONE, "light"), folder / "page-chat-phone.png")
        page = opened(browser, given.url, DESK, "light")
        tab(page, "Learning", folder / "page-learning.png", full_page=True)
        page = opened(browser, given.url, PHONE, "dark")
        tab(page, "River", folder / "page-river.png", full_page=False)
        browser.close()


def opened(
    browser: Browser, url: str, size: ViewportSize, scheme: Literal["dark", "light"]
) -> Page:
    """The page in a window of its own."""
    page = browser.new_page(viewport=size, color_scheme=scheme)
    page.set_default_timeout(TIMEOUT_MS)
    page.goto(url)
    return page


def chat(page: Page, picture: Path) -> None:
    """A question, its answer, why it is so, and what one thinks of it."""
    page.get_by_label("Ask something").fill(QUESTION)
    page.keyboard.press("Enter")
    thumb = page.get_by_label("Good answer")
    thumb.wait_for()
    page.get_by_role("button", name="Why this answer").click()
    thumb.click()
    page.wait_for_timeout(1_000)
    page.screenshot(path=picture)


def tab(page: Page, name: str, picture: Path, full_page: bool) -> None:
    """Another tab, once its figures are there."""
    page.get_by_role("tab", name=name).click()
    page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=picture, full_page=full_page)


if __name__ == "__main__":
    main()
