"""A real Chromium on the studio page, which the real front serves over a toy engine."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # the toys of tests/serve

from studio_server import StudioEngine
from toy_front import listening

from serve.ingress import routes

ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT_MS = 8000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser for the tests of a file; every test has a profile of its own in it.

    Not for the session: while Playwright's synchronous interface is open, no other test can run an event loop.
    """
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"the studio page needs a Chromium: none of {', '.join(NAMES)} is installed (apt install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        yield browser
        browser.close()


@dataclass
class Studio:
    """The page, the engine behind it, and what the browser complained of."""

    page: Any
    engine: StudioEngine
    url: str
    complaints: list[str]

    def draw(self, prompt: str = "a red apple", seed: int | None = 7) -> None:
        """Write a prompt and press Generate; does not wait for the picture."""
        self.page.get_by_label("Prompt", exact=True).fill(prompt)
        if seed is not None:
            self.setting("Seed").fill(str(seed))
        self.page.get_by_role("button", name="Generate").click()

    def drawn(self, pictures: int = 1) -> None:
        """Wait until the stage shows so many finished pictures."""
        self.page.locator("#stage[aria-busy=false] .plate button.frame").nth(pictures - 1).wait_for()

    def setting(self, label: str) -> Any:
        self.page.locator("#settings").evaluate("details => { details.open = true }")
        return self.page.get_by_label(label, exact=True)

    def visit(self, context: Any) -> None:
        """Open the page in a browser context of the caller's."""
        context.set_default_timeout(TIMEOUT_MS)
        self.page = context.new_page()
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.goto(self.url)
        self.page.locator("#styles label").first.wait_for()


@pytest.fixture
def engine() -> Iterator[StudioEngine]:
    engine = StudioEngine()
    yield engine
    engine.replica.close()


@pytest.fixture
def served(engine: StudioEngine) -> Iterator[str]:
    with listening(routes(engine, "toy")) as url:
        yield url


@pytest.fixture
def studio(chromium: Any, engine: StudioEngine, served: str) -> Iterator[Studio]:
    """The page in a wide window; the browser must have nothing to complain of but refusals that the test provokes."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    studio = Studio(None, engine, served, [])
    studio.visit(context)
    yield studio
    context.close()
    assert [said for said in studio.complaints if "Failed to load resource" not in said] == []
