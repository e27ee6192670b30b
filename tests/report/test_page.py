"""The page says what the document says, all of it, to nobody but its reader."""

import html
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from evaluations import EXTRACTORS, Json, drawn, evaluation, keep_pictures, leaves, put

from ssd1b.family.keep import everything
from ssd1b.models.files import load_unet
from ssd1b.models.lineage import Lineage, Trained
from ssd1b.report import document, words
from ssd1b.report.choice import choose
from ssd1b.report.curves import Curve, Point, Stage, Training

VOID = {"meta", "img", "br", "circle", "path", "polyline", "link", "input", "hr"}
SECTIONS = ["numbers", "gates", "pictures", "prompts", "groups", "distances", "training", "limits", "conditions",
            "lineage"]  # fmt: skip
HREFS = ("href", "src", "xlink:href", "action", "srcset", "data", "poster")
UNSHOWN = {"schema", "plain"}
"""What the page reads and has no reason to print."""


class Parsed(HTMLParser):
    """Collects tags, addresses, headings and ids; fails where tags do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def text_of(page: str) -> str:
    """Return what a reader reads: no script, no style, no tags."""
    bare = re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", " ", bare))


def numbers(told: Json) -> list[tuple[Any, ...]]:
    """Return the paths of all numbers that a page has to show."""
    found = [path for path, value in leaves(told) if isinstance(value, int | float) and not isinstance(value, bool)]
    scored_by = [path for path in found if path[0] == "conditions" and path[1] == "teacher"]
    return [path for path in found if path[-1] not in UNSHOWN and path not in scored_by]


@pytest.mark.parametrize("path", numbers(evaluation()), ids=lambda path: ".".join(map(str, path)))
def test_every_number_comes_from_the_document(path: tuple[Any, ...], tmp_path: Path) -> None:
    """The property: change it there, and the page shows the new one, which it did not before."""
    told = evaluation()
    was = told
    for key in path:
        was = was[key]
    value: float = 4321 if isinstance(was, int) else 0.6283
    shown = {"4,321", "4321"} if isinstance(was, int) else {words.number(value), words.percent(value), f"{value:g}"}
    if told["numbers"].get(path[-1]) == was and float(was).is_integer():
        value, shown = 4321.0, {"4,321"}

    def found(page: str) -> int:
        return sum(len(re.findall(rf"(?<![\d.,]){re.escape(each)}(?![\d])", text_of(page))) for each in shown)

    assert found(drawn(put(told, path, value), tmp_path)) > found(drawn(told, tmp_path))


def test_what_could_not_be_measured_is_told_so_and_breaks_nothing(told: Json, folder: Path) -> None:
    kept = {"conditions", "extractors", "schema", "windows"}
    for path, value in list(leaves(told)):
        if isinstance(value, float) and path[0] not in kept:
            told = put(told, path, None)
    told = put(told, ("windows", 0, "value"), None)
    page = drawn(told, folder)
    Parsed(page)
    text = text_of(page)
    assert text.count("not measured") > 40
    assert "could not be measured" in text
    assert not re.search(r"\b(nan|None|null|inf)\b", text)
    assert "fid_teacher was not measured" in text


def test_sections_stand_in_their_order_under_one_heading(told: Json, folder: Path) -> None:
    parsed = Parsed(drawn(told, folder))
    assert [attrs["id"] for attrs in parsed.all("section")] == SECTIONS
    levels = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(attrs["alt"] for attrs in parsed.all("img"))
    assert len(parsed.all("table")) == len(parsed.all("caption"))
    ids = [attrs["id"] for _, attrs in parsed.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    for attrs in parsed.all("a"):
        assert str(attrs["href"]).removeprefix("#") in ids


def test_the_page_asks_nobody_for_anything(told: Json, folder: Path) -> None:
    page = drawn(told, folder)
    parsed = Parsed(page)
    for _, attrs in parsed.tags:
        for name in HREFS:
            assert name not in attrs or str(attrs[name]).startswith(("#", "data:image/webp;base64,"))
    assert parsed.all("link") == []
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|https?://|//[a-z]", re.sub(r"//[^\n]* ", "", page))
    policy = next(attrs["content"] for attrs in parsed.all("meta") if attrs.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "script-src 'sha256-" in policy


EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }} & <b>"


def test_text_from_outside_is_escaped_wherever_it_stands(told: Json, folder: Path) -> None:
    fixed = {"when", "of", "by", "kind", "sha256", "scorer", "features"}
    strings = [
        path for path, value in leaves(told)
        if isinstance(value, str) and path[-1] not in fixed and "pictures" not in path
    ]  # fmt: skip
    assert ("teacher",) in strings
    clean = Parsed(drawn(told, folder))
    for path in strings:
        page = drawn(put(told, path, EVIL), folder)
        assert "<script>alert" not in page, path
        assert "onerror=alert(1)>" not in page, path
        parsed = Parsed(page)
        assert len(parsed.all("script")) == 1
        assert len(parsed.all("b")) == len(clean.all("b"))
        assert not any("onerror" in attrs for _, attrs in parsed.tags)
    assert "{{ 7*7 }}" in html.unescape(drawn(put(told, ("prompts", 0, "prompt"), EVIL), folder))


def test_a_picture_outside_the_folder_is_refused(told: Json, folder: Path) -> None:
    with pytest.raises(ValueError, match="leads out of"):
        drawn(put(told, ("prompts", 0, "pictures", "student"), "../secret.png"), folder)


def test_pictures_that_were_not_kept_leave_a_page(told: Json, tmp_path: Path) -> None:
    page = drawn(told, tmp_path)
    assert Parsed(page).all("img") == []
    assert "The evaluation kept no pictures." in page


def test_seventy_two_prompts_with_pictures_are_a_page_of_three_megabytes_at_most(tmp_path: Path) -> None:
    told = evaluation(72)
    keep_pictures(told, tmp_path, 256)
    page = drawn(told, tmp_path)
    assert len(page) < 3_000_000
    assert "All 72 prompts" not in page
    assert "are not shown on this page" not in page, "all 72 have pictures"


def test_five_thousand_prompts_stay_under_six_megabytes_and_say_what_is_not_shown(tmp_path: Path) -> None:
    told = evaluation(5000)
    shown = choose(document.parse(told).prompts).pictures_of
    keep_pictures({"prompts": [told["prompts"][i] for i in shown]}, tmp_path, 256)
    page = drawn(told, tmp_path)
    assert "no picture" not in page
    assert len(page) < 6_000_000
    count = re.search(r"The pictures of ([\d,]+) prompts are not shown", page)
    assert count is not None
    assert 4900 < int(count[1].replace(",", "")) < 5000
    assert page.count('role="rowheader"') == 5000


def test_gates_are_those_of_the_recipe_with_that_name(told: Json, folder: Path) -> None:
    text = text_of(drawn(told, folder))
    assert re.search(r"score_kept\s+✓\s+holds by 0\.033", text)
    assert "5 of 5 hold" in text
    assert "All 5 gates hold." in text
    slow = text_of(drawn(put(told, ("numbers", "step_speedup"), 1.1), folder))
    assert re.search(r"step_speedup\s+✕\s+fails by 0\.200", slow)
    assert "1 of 5 gates fails: step_speedup." in slow
    other = text_of(drawn(put(told, ("model",), "a/folder"), folder))
    assert "No promotion recipe is for a model of this name" in other
    unlike = text_of(drawn(put(told, ("conditions", "teacher", "steps"), 50), folder))
    assert "Nothing was decided: teacher and student were measured under unlike steps" in unlike
    assert "The gates could not be decided." in unlike


def test_the_verdict_is_one_line_made_of_numbers(told: Json, folder: Path) -> None:
    text = text_of(drawn(told, folder)).replace(words.BOUND, " ")
    assert (
        "Keeps 91 % of the image-text score of nano+poster (95 %: 86 % to 97 % over 5 prompts), with 58 % of its "
        "parameters, at 1.59 times its speed a step."
    ) in text
    assert "24 November 2026, 12:39 UTC" in text


def test_a_lineage_and_curves_are_told_where_there_are_some(told: Json, folder: Path) -> None:
    absent = text_of(drawn(told, folder))
    assert "No curves:" in absent
    assert "No lineage lies beside the model" in absent
    config = load_unet("nano").config
    story = Lineage(
        name="x", base="nano", base_parameters=8046532, parameters=4700123, anatomy="10+10", chosen="by hand",
        removed={"mid": "gone"}, keep_map=everything(config), licence="apache-2.0", size_px=128, commit="abc1234",
        trained=(Trained(stage="poster", teacher="nano+poster", carved=("mid",), steps=1234, rows_per_step=16, lr=4e-4,
                         weights={"task": 1.0, "output": None}),),
        data="the latents <b>", limits=("It draws no hands.",),
    )  # fmt: skip
    points = tuple(Point(step=i, value=8.0 / (1 + i)) for i in range(1000))
    curves = (Curve(name="training loss", points=points), Curve(name="held-out loss", points=points[::100]))
    training = Training(run="r123", stages=(Stage(name="poster", curves=curves),))
    page = drawn(told, folder, lineage=story, training=training)
    text = text_of(page)
    for said in ("abc1234", "1,234", "0.0004", "task 1", "It draws no hands.", "4,700,123, 58", "the latents <b>",
                 "r123"):  # fmt: skip
        assert said in text
    assert len(Parsed(page).all("polyline")) == 2
    assert all(str(line["points"]).count(",") <= 240 for line in Parsed(page).all("polyline"))


def test_another_schema_or_another_file_is_refused_with_what_is_wrong(told: Json, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of schema 2 cannot be drawn"):
        drawn({**told, "schema": 2}, tmp_path)
    with pytest.raises(ValueError, match=r"no evaluation: prompts\.0\.seed"):
        drawn(put(told, ("prompts", 0, "seed"), "x"), tmp_path)


def test_extractors_stand_with_their_whole_hashes(told: Json, folder: Path) -> None:
    page = drawn(told, folder)
    assert all(each["sha256"] in page for each in EXTRACTORS.values())
