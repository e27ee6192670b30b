"""The page in a real Chromium: it fits a desk and a phone, its tables can be sorted, and it stands without script."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from evaluations import drawn, evaluation, keep_pictures

pytestmark = pytest.mark.browser
NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
LONG = "a verylongprompt" + "withoutaspace" * 12


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"the page needs a Chromium: none of {', '.join(NAMES)} is installed (apt install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("page")
    told = evaluation(90)
    told["prompts"][0]["prompt"] = LONG
    told["prompts"][1]["prompt"] = "<script>document.title = 'broken'</script>"
    keep_pictures(told, folder, 48)
    (folder / "report.html").write_text(drawn(told, folder), encoding="utf-8")
    return (folder / "report.html").as_uri()


def opened(chromium: Any, address: str, **how: Any) -> tuple[Any, list[str]]:
    page = chromium.new_context(**how).new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda asked: said.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None)
    page.goto(address)
    return page, said


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_runs_over_the_edge_and_nothing_is_asked_for(
    chromium: Any, address: str, width: int, scheme: str
) -> None:
    page, said = opened(chromium, address, viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.locator("details").evaluate_all("all => all.forEach(each => { each.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert "broken" not in page.title()
    assert said == []
    page.context.close()


def test_a_printed_page_is_light_and_loses_nothing_at_its_edge(chromium: Any, address: str) -> None:
    page, _ = opened(chromium, address, viewport={"width": 720, "height": 1000}, color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") == 720
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.get_by_role("navigation").is_visible()
    page.context.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_table_is_sorted_by_its_headings(chromium: Any, address: str, width: int) -> None:
    page, said = opened(chromium, address, viewport={"width": width, "height": 900})
    table = page.locator("table.listing").first

    def column(label: str) -> list[float]:
        cells = table.locator(f"td[data-label={label}]")
        return [float(value) for value in cells.evaluate_all("all => all.map(each => each.dataset.value)")]

    lost = column("difference")
    assert lost == sorted(lost), "drawn worst first"
    table.get_by_role("button", name="Distance").click()
    assert column("distance") == sorted(column("distance"))
    table.get_by_role("button", name="Distance").click()
    assert column("distance") == sorted(column("distance"), reverse=True)
    assert table.locator("th[aria-sort=descending]").inner_text().startswith("Distance")
    assert table.locator("th[aria-sort]").count() == 1
    assert said == []
    page.context.close()


def test_without_script_it_stands_as_it_was_drawn(chromium: Any, address: str) -> None:
    page, _ = opened(chromium, address, java_script_enabled=False)
    assert page.locator("table.listing").first.locator("tbody tr").count() == 72
    assert page.locator("thead button").count() == 0
    assert page.get_by_role("heading", name="Bias and limits").is_visible()
    page.context.close()


CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (c) => c.slice(0, 3).map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = rgb(getComputedStyle(at).backgroundColor);
      if (found[3]) return found;
    }
  };
  return [...document.querySelectorAll("body *")]
    .filter((each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim())
      && each.checkVisibility({ opacityProperty: true }) && !each.closest("svg, script, .skip"))
    .map((each) => {
      const pair = [light(rgb(getComputedStyle(each).color)), light(ground(each))].sort((a, b) => b - a);
      return [(pair[0] + 0.05) / (pair[1] + 0.05), each.tagName + "." + each.className];
    })
    .filter(([ratio]) => ratio < 4.5);
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_a_contrast_of_four_and_a_half(chromium: Any, address: str, scheme: str) -> None:
    page, _ = opened(chromium, address, color_scheme=scheme)
    assert page.evaluate(CONTRAST) == []
    page.context.close()
