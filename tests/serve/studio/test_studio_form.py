"""What the form offers becomes the request: styles, adapters with weights, seeds, a picture to start from."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from toy_front import eventually

from serve.request import LoraChoice


def test_a_style_chip_dresses_the_prompt(studio: Any) -> None:
    studio.page.locator("#styles label", has_text="Origami").click()
    studio.draw("a red apple")
    studio.drawn()
    (request,) = studio.engine.requests
    assert request.style == "origami"
    assert "a red apple" in request.prompt != "a red apple"
    assert "origami" in studio.page.locator("#stage .label dl").inner_text()


def test_adapters_by_search_with_weights(studio: Any) -> None:
    field = studio.setting("Adapters")
    assert field.get_attribute("placeholder") == "Search 1000 adapters"
    field.fill("trait-99")
    assert studio.page.locator("#lora-list [role=option]").all_inner_texts() == [
        f"portrait-{number:03d}" for number in range(990, 996)
    ]
    studio.page.get_by_role("option", name="portrait-991").click()
    field.fill("INK")
    studio.page.keyboard.press("Enter")
    weight = studio.page.get_by_label("Weight of ink")
    weight.focus()
    for _ in range(3):
        studio.page.keyboard.press("ArrowLeft")
    studio.draw()
    studio.drawn()
    (request,) = studio.engine.requests
    assert request.loras == (LoraChoice(name="portrait-991"), LoraChoice(name="ink", scale=0.7))
    studio.page.get_by_role("button", name="Remove ink").click()
    studio.draw()
    eventually(lambda: len(studio.engine.requests) == 2)
    assert [lora.name for lora in studio.engine.requests[1].loras] == ["portrait-991"]


def test_only_some_of_a_thousand_adapters_are_listed(studio: Any) -> None:
    studio.setting("Adapters").fill("portrait")
    assert studio.page.locator("#lora-list [role=option]").count() == 40
    assert studio.page.get_by_text("956 more: type to narrow").is_visible()


def test_all_settings_reach_the_engine(studio: Any) -> None:
    studio.setting("Negative prompt").fill("grey")
    studio.page.locator("#sizes label", has_text="192 × 64").click()
    studio.setting("Steps, exactly").fill("7")
    studio.setting("Guidance, exactly").fill("2.5")
    studio.setting("Sampler").select_option("ddim")
    studio.draw(seed=11)
    studio.drawn()
    (request,) = studio.engine.requests
    assert (request.negative_prompt, str(request.size), request.steps) == ("grey", "192x64", 7)
    assert (request.guidance, request.sampler, request.seed) == (2.5, "ddim", 11)


def test_seeds_are_random_rolled_or_given(studio: Any) -> None:
    for _ in range(2):
        studio.draw(seed=None)
        studio.drawn()
        eventually(lambda: studio.page.locator("#generate").get_attribute("data-running") == "false")
    first, second = studio.engine.requests
    assert first.seed != second.seed
    studio.page.locator("#settings").evaluate("details => { details.open = true }")
    studio.page.get_by_role("button", name="Roll a seed").click()
    rolled = int(studio.page.get_by_label("Seed", exact=True).input_value())
    studio.draw(seed=None)
    eventually(lambda: len(studio.engine.requests) == 3)
    assert studio.engine.requests[2].seed == rolled
    studio.page.get_by_role("button", name="Random seed each time").click()
    assert studio.page.get_by_label("Seed", exact=True).input_value() == ""


def test_a_picture_to_start_from(studio: Any, tmp_path: Path) -> None:
    file = tmp_path / 'an "odd" name.png'
    Image.new("RGB", (128, 128), (9, 9, 9)).save(file)
    studio.page.locator("#settings").evaluate("details => { details.open = true }")
    studio.page.get_by_label("Start from a picture").set_input_files(file)
    studio.page.get_by_label("Redraw, exactly").fill("0.4")
    studio.draw()
    studio.drawn()
    (request,) = studio.engine.requests
    assert request.start is not None
    assert (request.start.picture, request.start.strength) == (file.read_bytes(), 0.4)
    assert "40 % redrawn" in studio.page.locator("#stage .label").inner_text()
    studio.page.get_by_role("button", name="Remove the picture").click()
    studio.draw()
    eventually(lambda: len(studio.engine.requests) == 2)
    assert studio.engine.requests[1].start is None


def test_a_file_that_is_no_picture_is_refused_at_the_field(studio: Any, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no picture")
    studio.page.locator("#settings").evaluate("details => { details.open = true }")
    studio.page.get_by_label("Start from a picture").set_input_files(file)
    error = studio.page.locator("[data-param=image] .error")
    assert error.text_content() == "notes.txt is text/plain: choose a PNG, JPEG or WebP file"


def test_a_drawn_picture_is_started_from(studio: Any) -> None:
    studio.draw(seed=77)
    studio.drawn()
    studio.page.get_by_role("button", name="Start from this").click()
    studio.draw()
    eventually(lambda: len(studio.engine.requests) == 2)
    start = studio.engine.requests[1].start
    assert start is not None
    assert Image.open(io.BytesIO(start.picture)).convert("RGB").getpixel((0, 0)) == (77, 77, 77)


def test_settings_of_a_picture_come_back(studio: Any) -> None:
    studio.page.locator("#styles label", has_text="Anime").click()
    studio.setting("Adapters").fill("chalk")
    studio.page.keyboard.press("Enter")
    studio.setting("Steps, exactly").fill("9")
    studio.draw("a red apple", seed=5)
    studio.drawn()
    studio.page.reload()
    studio.page.locator("#styles label").first.wait_for()
    studio.page.get_by_role("button", name="Use settings").click()
    studio.page.get_by_role("button", name="Generate").click()
    eventually(lambda: len(studio.engine.requests) == 2)
    first, second = studio.engine.requests
    assert first == second


def test_the_page_notices_that_another_version_is_served(studio: Any) -> None:
    page, painter = studio.page, studio.engine.painter
    page.locator("#model", has_text="toy, version 1").wait_for()
    painter.offer = replace(painter.offer, version="2", samplers=("euler", "unipc"))
    page.get_by_role("button", name="1 replica").click()  # an open board asks every two seconds
    page.locator("#model", has_text="toy, version 2").wait_for()
    assert page.locator("#sampler option").all_text_contents() == ["euler", "unipc"]
