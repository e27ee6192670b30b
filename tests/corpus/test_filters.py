"""One pair, one judgement: a manifest row or a named reason."""

import dataclasses

import pytest
from drawn import encoded, png
from PIL import Image

from ssd1b.corpus.filters import clean, judge, selected
from ssd1b.corpus.manifest import sample_id, split_of
from ssd1b.corpus.pair import Pair
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.recipes.ingest import Ingest

NANO = Ingest(name="t", source="parquet", buckets="nano")
PAIR = Pair(source="s", key="k", captions=("a red apple",), image=png(), style="3d render", subgroup="food-fruit")


def test_a_good_pair_becomes_a_row() -> None:
    row = judge(PAIR, NANO)
    assert isinstance(row, dict)
    assert (row["height"], row["width"], row["bucket"]) == (128, 128, "128x128")
    assert row["sample_id"] == sample_id("s", "k")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"captions": ()}, Reason.CAPTION_EMPTY),
        ({"captions": ("  ", "!?")}, Reason.CAPTION_EMPTY),
        ({"image": b"junk"}, Reason.IMAGE_CORRUPT),
        ({"image": None, "path": "/nowhere/a.png"}, Reason.IMAGE_MISSING),
        ({"image": png(127, 128)}, Reason.TOO_SMALL),
        ({"image": png(600, 128)}, Reason.ASPECT_EXTREME),
        ({"image": encoded(Image.new("RGB", (128, 128), "navy"))}, Reason.IMAGE_BLANK),
    ],
)
def test_each_flaw_has_its_name(change: dict[str, object], reason: Reason) -> None:
    found = judge(dataclasses.replace(PAIR, **change), NANO)
    assert isinstance(found, Reject)
    assert (found.reason, found.source, found.key) == (reason, "s", "k")


def test_sdxl_buckets_follow_the_aspect_and_are_never_filled_by_scaling_up() -> None:
    sdxl = dataclasses.replace(NANO, buckets="sdxl")
    wide = judge(dataclasses.replace(PAIR, image=png(1400, 800)), sdxl)
    assert isinstance(wide, dict)
    assert wide["bucket"] == "1344x768"
    small = judge(PAIR, sdxl)
    assert isinstance(small, Reject)
    assert small.reason is Reason.TOO_SMALL


def test_captions_are_tidied_and_told_once() -> None:
    assert clean(["a  cat", "a cat", "\n", "une pomme"]) == ["a cat", "une pomme"]


def test_selection_goes_by_style_split_and_subgroup() -> None:
    split = "train" if split_of("s/k") == "heldout" else "heldout"
    assert selected(PAIR, NANO)
    for change in ({"styles": ("flat vector",)}, {"subgroups": ("animal-bird",)}, {"splits": (split,)}):
        assert not selected(PAIR, dataclasses.replace(NANO, **change))


def test_what_a_source_calls_test_is_held_out() -> None:
    row = judge(dataclasses.replace(PAIR, split="test"), NANO)
    assert isinstance(row, dict)
    assert row["split"] == "heldout"


def test_identities_do_not_change() -> None:
    """Resume and elastic order go by sample_id: a changed hash would forget what was seen."""
    assert sample_id("a", "b") == 6463353407833682387
    assert split_of("1f34e") in ("train", "heldout")
    assert sample_id("ab", "c") != sample_id("a", "bc")
