"""Drawings before backdrops: what stays of the drawing, what is laid behind it, and what is held out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd1b.corpus.backdrops import BACKDROPS, lay, paper_of, rgb
from ssd1b.pretraining.pictures import before, read_pictures

SIDE = 32


def ring() -> np.ndarray:
    """Return a red ring on paper with white inside it."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    distance = np.hypot(y, x)
    picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
    picture[(distance > 6) & (distance < 12)] = (200, 10, 10)
    return picture


def test_paper_is_what_reaches_the_border_and_white_inside_stays() -> None:
    paper = paper_of(ring())
    assert paper[0, 0]
    assert not paper[SIDE // 2, SIDE // 2]
    laid = lay(ring(), BACKDROPS["blue"])
    assert (laid[0, 0] == rgb("#7db8ff")).all()
    assert (laid[SIDE // 2, SIDE // 2] == 255).all()
    assert (laid[SIDE // 2, SIDE // 2 + 9] == (200, 10, 10)).all()


@pytest.mark.parametrize("name", sorted(BACKDROPS))
def test_every_backdrop_fills_the_paper_of_a_blank_picture(name: str) -> None:
    ground = BACKDROPS[name].paint(SIDE)
    assert ground.shape == (SIDE, SIDE, 3)
    assert ground.dtype == np.uint8
    np.testing.assert_array_equal(lay(np.full((SIDE, SIDE, 3), 255, np.uint8), BACKDROPS[name]), ground)


@given(shade=st.integers(0, 127), seed=st.integers(0, 1000))
def test_dark_drawings_keep_every_pixel(shade: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
    inside = draw.random((SIDE, SIDE)) < 0.5
    picture[inside] = shade
    laid = lay(picture, BACKDROPS["night"])
    assert (laid[inside] == shade).all()


def test_every_drawing_comes_before_every_backdrop_but_the_held_out_ones() -> None:
    drawings = read_pictures(styles=("flat vector", "soft cartoon"), subgroups=("food-fruit",))
    shown = before(drawings, ["blue", "night"], held_out=[("flat vector", "night")])
    flat, soft = (drawings.styles.count(style) for style in ("flat vector", "soft cartoon"))
    assert len(shown) == len(shown.backdrops) == len(shown.pixels_NCHW) == 2 * flat + 3 * soft
    assert ("flat vector", "night") not in set(zip(shown.styles, shown.backdrops, strict=True))
    assert all(text.endswith(", at night") for text in shown.captions[-1])
    one = before(drawings, ["blue", "night", "meadow"], one_each=True)
    assert len(one) == 2 * len(drawings)


def test_an_unknown_backdrop_is_named_with_the_known_ones() -> None:
    drawings = read_pictures(styles=("flat vector",), subgroups=("food-fruit",))
    with pytest.raises(ValueError, match=r"no backdrop \['jungle'\].*'meadow'"):
        before(drawings, ["jungle"])
