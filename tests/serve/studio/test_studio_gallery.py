"""What is left of a picture: the gallery that outlives the page, the large view, the curl line, the status view."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from toy_front import eventually


def gallery(studio: Any) -> list[str]:
    return list(studio.page.locator("#prints figcaption").all_inner_texts())


def three(studio: Any) -> None:
    for number, prompt in enumerate(("one", "two", "three")):
        studio.draw(prompt, seed=50 + number)
        studio.page.locator("#stage .title", has_text=prompt).wait_for()
        studio.drawn()


def test_the_gallery_outlives_the_page(studio: Any) -> None:
    three(studio)
    assert gallery(studio) == ["two", "one"]
    studio.page.reload()
    studio.drawn()
    assert gallery(studio) == ["two", "one"]
    assert studio.page.locator("#stage .title").inner_text() == "three"
    assert "3 pictures, kept in this browser only" in studio.page.locator("#gallery").inner_text()


def test_a_picture_is_enlarged_paged_downloaded(studio: Any) -> None:
    three(studio)
    studio.page.get_by_role("button", name="Enlarge: two").click()
    viewer = studio.page.get_by_role("dialog", name="Picture")
    assert viewer.locator(".title").inner_text() == "two"
    studio.page.keyboard.press("ArrowRight")
    assert viewer.locator(".title").inner_text() == "one"
    assert viewer.get_by_role("button", name="Older picture").is_disabled()
    with studio.page.expect_download() as told:
        viewer.get_by_role("link", name="Download").click()
    assert told.value.suggested_filename == "one-50.png"
    assert Image.open(told.value.path()).size == (128, 128)
    studio.page.keyboard.press("Escape")
    assert viewer.is_hidden()


def test_delete_and_undo(studio: Any) -> None:
    three(studio)
    studio.page.get_by_role("button", name="Enlarge: one").click()
    studio.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    eventually(lambda: gallery(studio) == ["two"])
    studio.page.get_by_role("button", name="Undo").click()
    eventually(lambda: gallery(studio) == ["two", "one"])
    studio.page.locator("#stage").get_by_role("button", name="Delete").click()
    eventually(lambda: gallery(studio) == ["one"])
    studio.page.reload()
    studio.drawn()
    assert studio.page.locator("#stage .title").inner_text() == "two"


def test_without_a_database_pictures_stay_until_the_page_closes(chromium: Any, studio: Any) -> None:
    context = chromium.new_context()
    context.add_init_script("Object.defineProperty(globalThis, 'indexedDB', {get() { throw new Error('it is off') }})")
    studio.visit(context)
    three(studio)
    assert gallery(studio) == ["two", "one"]
    assert "cannot be kept here (it is off)" in studio.page.locator("#gallery-note").inner_text()
    context.close()


def run(line: str, folder: Path) -> str:
    done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=15)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_line_draws_the_same(studio: Any, tmp_path: Path) -> None:
    prompt = 'it\'s a "red" $HOME `apple` \\'
    studio.setting("Adapters").fill("ink")
    studio.page.keyboard.press("Enter")
    studio.page.locator("#counts label", has_text="2").click()
    studio.draw(prompt, seed=30)
    studio.drawn(2)
    run(studio.page.locator("#stage pre").text_content(), tmp_path)
    first, second = studio.engine.requests
    assert second == replace(first, previews=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["picture-30.png", "picture-31.png"]
    assert Image.open(tmp_path / "picture-31.png").getpixel((0, 0)) == (31, 31, 31)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_line_sends_a_picture_to_start_from(studio: Any, tmp_path: Path) -> None:
    file = tmp_path / 'a "red" one.png'
    Image.new("RGB", (128, 128), (9, 9, 9)).save(file)
    studio.page.locator("#settings").evaluate("details => { details.open = true }")
    studio.page.get_by_label("Start from a picture").set_input_files(file)
    studio.draw("@a red apple", seed=30)
    studio.drawn()
    run(studio.page.locator("#stage pre").text_content(), tmp_path)
    first, second = studio.engine.requests
    assert second == replace(first, previews=0)


def test_any_word_survives_the_shell(studio: Any, tmp_path: Path) -> None:
    quoted = studio.page.evaluate_handle("import('/js/curl.js').then(module => module.quoted)")
    words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)

    @given(words)
    @settings(max_examples=40)
    def survives(word: str) -> None:
        in_shell = quoted.evaluate("(quoted, word) => quoted(word)", word)
        assert bytes.fromhex(run(f"printf %s {in_shell} | od -An -v -tx1", tmp_path)).decode() == word

    survives()


def test_the_copy_button_copies_the_line(studio: Any) -> None:
    studio.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    studio.draw()
    studio.drawn()
    studio.page.get_by_role("button", name="Copy").click()
    studio.page.get_by_role("button", name="Copied").wait_for()
    line = studio.page.locator("#stage pre").text_content()
    assert studio.page.evaluate("navigator.clipboard.readText()") == line
    assert line.startswith(f"curl -sS '{studio.url}/v1/images/generations'")


def test_the_status_view_shows_replicas(studio: Any) -> None:
    studio.setting("Adapters").fill("ink")
    studio.page.keyboard.press("Enter")
    studio.draw()
    studio.drawn()
    studio.page.get_by_role("button", name="1 replica").click()
    board = studio.page.locator("#board")
    board.locator("article h3", has_text="pid ").wait_for()
    board.get_by_role("list", name="Resident adapters").get_by_text("ink").wait_for()
    assert board.get_by_text("Work left").is_visible()
    studio.page.keyboard.press("Escape")
    assert board.is_hidden()


def test_a_hidden_page_asks_nothing(studio: Any) -> None:
    studio.page.get_by_role("button", name="1 replica").click()
    asked: list[str] = []
    studio.page.on("request", lambda request: asked.append(request.url))
    eventually(lambda: studio.page.wait_for_timeout(50) or asked)
    studio.page.evaluate("Object.defineProperty(document, 'hidden', {value: true})")
    studio.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    studio.page.wait_for_timeout(100)
    asked.clear()
    studio.page.wait_for_timeout(2500)
    assert asked == []
