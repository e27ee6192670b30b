"""Drawing by the page: previews, the finished picture, cancelling, and all that can go wrong on the way."""

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from studio_server import StudioEngine
from toy_front import eventually, listening
from toy_painter import POISON

from serve.accounts import open_accounts
from serve.accounts.__main__ import main as accounts
from serve.ingress import routes


def colour(studio: Any) -> tuple[int, ...]:
    """The colour of the flat picture on the stage, read back from what the browser paints."""
    picture = studio.page.locator("#stage .plate button.frame img").first.screenshot()
    pixel = Image.open(io.BytesIO(picture)).convert("RGB").getpixel((40, 40))
    assert isinstance(pixel, tuple)
    return pixel


def test_previews_and_then_the_picture(studio: Any) -> None:
    studio.engine.painter.step_s = 0.03
    studio.draw(seed=200)
    layer = studio.page.locator("#stage .making .layers img")
    layer.first.wait_for()
    assert studio.page.locator("#stage").get_attribute("aria-busy") == "true"
    eventually(lambda: studio.page.locator("#stage progress").get_attribute("value") == "0.75")
    studio.drawn()
    assert colour(studio) == (200, 200, 200)
    (request,) = studio.engine.requests
    assert (request.prompt, request.seed, request.previews, request.n) == ("a red apple", 200, 3, 1)
    assert "Done in" in studio.page.locator("#told").text_content()


def test_four_pictures_of_one_request(studio: Any) -> None:
    studio.page.locator("#counts label", has_text="4").click()
    studio.draw(seed=10)
    studio.drawn(4)
    (request,) = studio.engine.requests
    assert request.seeds == (10, 11, 12, 13)
    assert "10 to 13" in studio.page.locator("#stage .label").inner_text()
    assert colour(studio) == (10, 10, 10)


def test_cancel_stops_the_engine_within_a_step(studio: Any) -> None:
    studio.engine.painter.step_s = 0.05
    studio.setting("Steps, exactly").fill("100")
    studio.draw()
    eventually(lambda: studio.engine.steps >= 3)
    studio.page.get_by_role("button", name="Cancel").click()
    studio.page.get_by_text("Cancelled").wait_for()
    made = studio.engine.steps
    time.sleep(0.4)
    assert studio.engine.steps <= made + 2 < 60  # one that ran, and one while the socket closed
    assert len(studio.engine.requests) == 1
    studio.engine.painter.step_s = 0.0
    studio.page.get_by_role("button", name="Generate").click()
    studio.drawn()


def test_the_second_half_of_a_double_press_cancels_nothing(studio: Any) -> None:
    studio.engine.painter.step_s = 0.02
    studio.page.get_by_label("Prompt", exact=True).fill("a red apple")
    studio.page.get_by_role("button", name="Generate").dblclick()
    studio.drawn()
    assert len(studio.engine.requests) == 1


@pytest.mark.parametrize(
    ("fill", "param", "says"),
    [
        ({"Prompt": " "}, "prompt", "Say what to draw."),
        ({"Prompt": "word " * 61}, "prompt", "61 tokens; toy reads at most 60"),
        ({"Prompt": "x", "Negative prompt": "unreadable"}, "negative_prompt", "weight 99 is too great"),
        ({"Prompt": "x", "Seed": "9007199254740993"}, "seed", "whole number from 0"),
    ],
)
def test_an_error_stands_at_its_field(studio: Any, fill: dict[str, str], param: str, says: str) -> None:
    for label, value in fill.items():
        studio.setting(label).fill(value)
    studio.page.get_by_role("button", name="Generate").click()
    field = studio.page.locator(f"[data-param={param}]")
    field.locator(".error", has_text=says).wait_for()
    control = field.locator("textarea, input").first
    assert control.get_attribute("aria-invalid") == "true"
    assert control.evaluate("control => control === document.activeElement")
    control.fill("better")
    assert field.locator(".error").text_content() == ""
    assert control.get_attribute("aria-invalid") == "false"


def test_an_error_of_an_adapter_opens_the_settings(studio: Any) -> None:
    studio.setting("Adapters").fill("unfit")
    studio.page.keyboard.press("Enter")
    studio.page.locator("#settings > summary").click()
    studio.page.get_by_label("Prompt", exact=True).fill("x")
    studio.page.keyboard.press("Control+Enter")
    studio.page.locator("[data-param=lora] .error", has_text="does not fit this model").wait_for()
    assert studio.page.locator("#settings").get_attribute("open") is not None


def test_the_network_is_lost_and_comes_back(studio: Any) -> None:
    studio.page.context.set_offline(True)
    studio.draw("a red apple")
    studio.page.get_by_text("The server cannot be reached").wait_for()
    studio.page.context.set_offline(False)
    studio.page.get_by_role("button", name="Try again").click()
    studio.drawn()
    assert studio.page.locator("#trouble").is_hidden()


def test_a_broken_engine_is_told_in_the_servers_words(studio: Any) -> None:
    studio.draw(seed=POISON)
    studio.page.locator("#trouble", has_text="its log names req_").wait_for()
    assert studio.page.get_by_role("button", name="Generate").is_enabled()


def test_a_stream_that_breaks_off_is_offered_again(studio: Any) -> None:
    studio.engine.painter.step_s = 0.02
    studio.engine.errors, studio.engine.dies_after = [KeyError("the front fails")], 4
    studio.draw()
    studio.page.locator("#trouble", has_text="broke off before the picture was done").wait_for()
    studio.page.get_by_role("button", name="Try again").click()
    studio.drawn()


def test_an_endpoint_that_streams_nothing_still_draws(studio: Any) -> None:
    def refuse(route: Any) -> None:
        if not route.request.post_data_json.get("stream"):
            route.continue_()
            return
        error = {"message": "Streaming is not offered", "param": "stream", "code": "unsupported_value"}
        route.fulfill(status=400, json={"error": error})

    studio.page.route("**/v1/images/generations", refuse)
    studio.draw(seed=9)
    studio.drawn()
    studio.page.unroute("**/v1/images/generations")
    assert colour(studio) == (9, 9, 9)
    assert studio.engine.requests[0].previews == 0


def test_enter_in_a_field_begins_but_does_not_cancel(studio: Any) -> None:
    studio.engine.painter.step_s = 0.03
    studio.draw()
    eventually(lambda: studio.engine.steps >= 2)
    studio.page.get_by_label("Seed", exact=True).press("Enter")
    studio.drawn()
    studio.page.get_by_label("Seed", exact=True).press("Enter")
    eventually(lambda: len(studio.engine.requests) == 2)


def test_a_key_is_asked_for_and_kept_for_the_tab(
    chromium: Any, engine: StudioEngine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not any(home.iterdir())
    accounts(["add", "ann", "--credits", "9"])
    capsys.readouterr()
    accounts(["key", "ann", "--json"])
    key = json.loads(capsys.readouterr().out)["key"]
    books = open_accounts()
    context = chromium.new_context()
    try:
        with listening(routes(engine, "toy", accounts=books)) as url:
            page = context.new_page()
            page.goto(url)
            page.get_by_role("dialog", name="API key").wait_for()
            page.get_by_label("Key", exact=True).fill("sk-wrong")
            page.keyboard.press("Enter")
            page.locator("#key-why", has_text="key").wait_for()
            page.get_by_role("dialog", name="API key").wait_for()
            page.get_by_label("Key", exact=True).fill(key)
            page.keyboard.press("Enter")
            page.locator("#styles label").first.wait_for()
            page.get_by_label("Prompt", exact=True).fill("a red apple")
            page.keyboard.press("Control+Enter")
            page.locator("#stage .plate button.frame").wait_for()
            assert key not in page.locator("#stage pre").text_content()
            assert "$SSD1B_KEY" in page.locator("#stage pre").text_content()
            page.reload()
            page.locator("#styles label").first.wait_for()
            assert page.evaluate("Object.keys(localStorage).filter(name => name.includes('key'))") == []
            page.close()
    finally:
        context.close()
        books.close()
