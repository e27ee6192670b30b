"""Drawings to pairs: exact colours, styles from names, one concept over all vendors."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from ssd1b.corpus.colours import GROUNDS, INKS, LEAST_CONTRAST, PAIRS, contrast
from ssd1b.corpus.emoji import Drawing, EmojiSet, read_emoji
from ssd1b.corpus.icons import SETS, colour_pairs, noun_of, read_icons, style_of
from ssd1b.corpus.pair import Pair
from ssd1b.corpus.reasons import Reason, Reject

SQUARE = '<path fill="currentColor" d="M4 4h16v16H4z"/>'
PH, *_ = SETS


@pytest.fixture
def node_modules(tmp_path: Path) -> Path:
    """Two packages of three emoji and a few icons."""

    def write(name: str, content: object) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    write("emojibase-data/en/data.json", [
        {"label": "brain", "hexcode": "1F9E0", "tags": ["mind"], "group": 1, "subgroup": 2},
        {"label": "waving hand", "hexcode": "1F44B", "group": 1, "subgroup": 2, "tags": [],
         "skins": [{"label": "waving hand: dark skin tone", "hexcode": "1F44B-1F3FF"}]},
    ])  # fmt: skip
    write("emojibase-data/meta/groups.json", {"groups": {"1": "people-body"}, "subgroups": {"2": "body-parts"}})
    icons = {name: {"body": SQUARE} for name in ("brain", "brain-fill", "x-logo", "home-01")}
    icons["old"] = {"body": SQUARE, "hidden": True}
    icons["torn"] = {"body": "<path"}
    write("@iconify-json/ph/icons.json", {"icons": icons, "width": 24, "height": 24})
    write("@iconify-json/ph/package.json", {"version": "1"})
    drawn = {name: {"body": SQUARE} for name in ("brain", "mind-organ", "hand", "hand-dark", "nothing-known")}
    write("@iconify-json/noto/icons.json", {"icons": drawn, "width": 24, "height": 24})
    write("@iconify-json/noto/package.json", {"version": "2"})
    write("@iconify-json/noto/chars.json", {"1f44b": "hand", "1f44b-1f3ff": "hand-dark", "1f9e0": "mind-organ"})
    return tmp_path


def test_icons_are_drawn_in_the_colours_that_the_caption_names(node_modules: Path) -> None:
    found = list(read_icons(node_modules, PH, side=24, variants=3))
    pairs = [item for item in found if isinstance(item, Pair)]
    assert len(pairs) == 3 * 3
    for pair in pairs:
        ink, ground = pair.key.partition("/")[2].split("-")
        assert ink in pair.captions[0]
        assert f"{ground} background" in pair.captions[0]
        assert pair.image is not None
        picture = Image.open(io.BytesIO(pair.image)).convert("RGB")
        for where, colour in (((12, 12), INKS[ink]), ((0, 0), GROUNDS[ground])):
            assert picture.getpixel(where) == tuple(bytes.fromhex(colour[1:]))
    reasons = {item.key: (item.reason, item.rows) for item in found if isinstance(item, Reject) and "/" not in item.key}
    assert reasons == {"x-logo": (Reason.BRAND_LOGO, 3), "old": (Reason.ICON_WITHDRAWN, 3)}
    assert sum(isinstance(item, Reject) and item.reason is Reason.IMAGE_CORRUPT for item in found) == 3


def test_an_icon_shares_the_concept_of_the_emoji_of_its_name(node_modules: Path) -> None:
    pairs = [item for item in read_icons(node_modules, PH, side=24, variants=1) if isinstance(item, Pair)]
    assert {(pair.concept, pair.style) for pair in pairs} == {
        ("1f9e0", "line icon"),
        ("1f9e0", "solid icon"),
        ("home", "line icon"),
    }


def test_emoji_join_by_code_point_and_skin_tones_share_their_concept(node_modules: Path) -> None:
    noto = EmojiSet(package="@iconify-json/noto", style="soft cartoon", licence="Apache-2.0", source="noto")
    found = list(read_emoji(node_modules, noto, 24))
    drawings = {item.concept.code: item.pair for item in found if isinstance(item, Drawing)}
    assert set(drawings) == {"1f9e0", "1f44b", "1f44b-1f3ff"}
    assert drawings["1f44b-1f3ff"].concept == "1f44b"
    assert drawings["1f44b-1f3ff"].captions[0] == "a waving hand, dark skin tone, soft cartoon style"
    reasons = {item.key: item.reason for item in found if isinstance(item, Reject)}
    assert reasons == {"mind-organ": Reason.CONCEPT_DRAWN_TWICE, "nothing-known": Reason.CONCEPT_UNKNOWN}


def test_no_pair_of_colours_is_like_on_like() -> None:
    assert min(contrast(INKS[ink], GROUNDS[ground]) for ink, ground in PAIRS) >= LEAST_CONTRAST
    assert ("black", "navy") not in PAIRS
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)


def test_all_pairs_of_an_icon_are_different() -> None:
    assert set(colour_pairs("ph/brain", len(PAIRS))) == set(PAIRS)
    assert colour_pairs("ph/brain", 2) == colour_pairs("ph/brain", 5)[:2]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("brain-duotone", ("brain", "duotone")), ("brain", ("brain", "line")), ("-fill", ("-fill", "line"))],
)
def test_the_suffix_is_the_style(name: str, expected: tuple[str, str]) -> None:
    assert style_of(name, PH) == expected


def test_names_become_nouns() -> None:
    assert [noun_of(name) for name in ("home-01", "align-box--left", "3d-cursor", "01")] == [
        "home", "align box left", "3d cursor", "01",
    ]  # fmt: skip
