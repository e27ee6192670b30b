"""Styles go around any prompt and lose none of it; files of them say what is wrong and where."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.errors import RequestError
from serve.request import GenerationRequest
from serve.styles import VARIABLE, Style, dressed, key_of, open_styles
from ssd1b.corpus.captions import captions
from ssd1b.corpus.emoji import SHIPPED_SETS

ANNOUNCED = (
    "photorealist", "lowpoly", "isometric", "origami", "sticker", "anime", "craft clay", "line art", "water color",
    "neon punk",
)  # fmt: skip
STYLES = open_styles()


def asked(prompt: str, style: str | None, negative: str = "") -> GenerationRequest:
    return GenerationRequest(prompt=prompt, negative_prompt=negative, seed=1, style=style)


def test_the_announced_ten_come_first() -> None:
    assert tuple(STYLES)[:10] == ANNOUNCED
    assert all(STYLES[name].negative_prompt for name in ANNOUNCED)
    assert len({style.prompt for style in STYLES.values()}) == len(STYLES)


def test_the_corpus_styles_are_in_the_words_of_its_captions() -> None:
    trained = {one.style for one in SHIPPED_SETS}
    own = list(STYLES)[10:]
    assert len(own) == 6
    assert set(own) == trained
    for name in own:
        assert dressed(asked("an apple", name), STYLES).prompt == captions("apple", [], name)[0]


def test_no_style_changes_nothing() -> None:
    request = asked("an apple", None)
    assert dressed(request, STYLES) is request


@given(prompt=st.text(min_size=1), negative=st.text(), name=st.sampled_from(list(STYLES)))
def test_nothing_of_a_prompt_is_lost(prompt: str, negative: str, name: str) -> None:
    made = dressed(asked(prompt, name, negative), STYLES)
    before, _, after = STYLES[name].prompt.partition("{prompt}")
    assert made.prompt == before + prompt + after
    assert made.negative_prompt.startswith(negative)
    assert made.negative_prompt.endswith(STYLES[name].negative_prompt)
    assert (made.style, made.seed) == (STYLES[name].name, 1)


@pytest.mark.parametrize("said", ["Craft-Clay", "craft_clay", " CRAFT  CLAY "])
def test_names_are_forgiving(said: str) -> None:
    assert dressed(asked("a fox", said), STYLES).style == "craft clay"


def test_an_unknown_style_names_the_nearest() -> None:
    with pytest.raises(RequestError, match="did you mean 'origami'") as info:
        dressed(asked("a fox", "orgami"), STYLES)
    assert (info.value.param, info.value.status) == ("style", 400)


def written(path: Path, content: Any) -> Path:
    file = path / "own.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def test_styles_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"Holzschnitt": {"prompt": "Holzschnitt: {prompt}"}, "line-art": {"prompt": "{prompt}, thin"}}
    file = written(tmp_path, own)
    for styles in (open_styles(file), open_styles(str(file))):
        assert styles["holzschnitt"] == Style("Holzschnitt", "Holzschnitt: {prompt}")
        assert dressed(asked("a fox", "line art"), styles).prompt == "a fox, thin"
        assert len(styles) == len(STYLES) + 1
    monkeypatch.setenv(VARIABLE, str(file))
    assert "holzschnitt" in open_styles()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot be read"),
        ("[]", "write one object"),
        ({"x": "y"}, "style 'x' must be an object"),
        ({"x": {"prompt": "y"}}, "style 'x' must say {prompt} once"),
        ({"x": {"prompt": "{prompt} {prompt}"}}, "style 'x' must say {prompt} once"),
        ({"x": {}}, "style 'x' must say {prompt} once"),
        ({"x": {"prompt": 3}}, "style 'x' has a prompt that is not text"),
        ({"x": {"prompt": "{prompt}", "negative": ""}}, "style 'x' has 'negative'; known: prompt, negative_prompt"),
        ({" ": {"prompt": "{prompt}"}}, "style ' ' has an empty name"),
        ({"a b": {"prompt": "{prompt}"}, "A-B": {"prompt": "{prompt}"}}, "style 'A-B' is 'a b' again"),
        ('{"x": {"prompt": "{prompt}"}, "x": {"prompt": "{prompt}"}}', "'x' is there twice"),
    ],
)
def test_files_that_hold_no_styles(tmp_path: Path, content: Any, says: str) -> None:
    with pytest.raises(ValueError, match=r"own\.json") as info:
        open_styles(written(tmp_path, content))
    assert says in str(info.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing\.json"):
        open_styles(tmp_path / "nothing.json")


@given(st.text())
def test_keys_are_stable(name: str) -> None:
    assert key_of(key_of(name)) == key_of(name)
