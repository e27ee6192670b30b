"""No pair of near duplicates is missed, who stays depends on nothing but the rows, and likeness is what hashes say."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from ssd1b.corpus import near_duplicates as room
from ssd1b.corpus import near_pairs as pairs_room
from ssd1b.corpus.hashes import perceptual_hash
from ssd1b.corpus.near_duplicates import near_duplicates
from ssd1b.corpus.near_pairs import BITS, choose_masks, near_pairs
from ssd1b.corpus.shipped import PATH
from ssd1b.recipes.filters import Filters


def distance(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def by_hand(hashes: list[int], ids: list[int], within: int) -> list[int]:
    """Greedy by sample_id, one row after the other, against all that stay."""
    keeper = [-1] * len(hashes)
    staying: list[int] = []
    for row in sorted(range(len(hashes)), key=lambda row: ids[row]):
        near = [other for other in staying if distance(hashes[row], hashes[other]) <= within]
        if near:
            keeper[row] = near[0]
        else:
            staying.append(row)
    return keeper


def families(seed: int, count: int, flips: int) -> NDArray[np.uint64]:
    """Hashes that are few bits away from one another, in families and in chains."""
    random = np.random.default_rng(seed)
    hashes = [int(random.integers(0, 2**63))]
    for _ in range(count - 1):
        origin = hashes[random.integers(len(hashes))] if random.random() < 0.8 else int(random.integers(0, 2**63))
        for bit in random.integers(0, BITS, random.integers(0, flips + 1)).tolist():
            origin ^= 1 << bit
        hashes.append(origin)
    return np.array(hashes, np.uint64)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 60), flips=st.integers(0, 6), within=st.integers(0, 8))
def test_it_is_greedy_by_sample_id(seed: int, count: int, flips: int, within: int) -> None:
    hashes = families(seed, count, flips)
    ids = np.random.default_rng(seed).permutation(count).astype(np.uint64) * np.uint64(2**57)
    found = near_duplicates(hashes, ids, within)
    assert found.tolist() == by_hand(hashes.tolist(), ids.tolist(), within)
    for row, keeper in enumerate(found.tolist()):
        assert keeper == -1 or (found[keeper] == -1 and distance(int(hashes[row]), int(hashes[keeper])) <= within)


@pytest.mark.parametrize("within", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("rows", [10, 10**4, 10**7, 10**9])
def test_two_hashes_within_the_distance_share_a_key(rows: int, within: int) -> None:
    """For whatever bits differ: all of them lie in `within` bands at most, and some mask leaves these out."""
    masks = [int(mask) for mask in choose_masks(rows, rows, within, 2**BITS - 1)]
    random = np.random.default_rng(0)
    for _ in range(300):
        bits = random.choice(BITS, within, replace=False).tolist()
        assert any(not any(mask >> bit & 1 for bit in bits) for mask in masks)
    shared = rows / 2 ** min(mask.bit_count() for mask in masks)
    assert shared < 64 or rows > 10**7 or within > 5, "so many rows share a key that a search never ends"


def test_every_pair_is_found_in_a_corpus_larger_than_a_key() -> None:
    hashes = families(3, 4000, 3)
    found = {
        pair for pairs in near_pairs(hashes, hashes, 3) for pair in zip(*map(np.ndarray.tolist, pairs), strict=True)
    }
    found = {(low, high) for low, high in found if low < high}
    apart_NN = np.bitwise_count(hashes[:, None] ^ hashes[None])
    low, high = np.nonzero(np.triu(apart_NN <= 3, k=1))
    assert len(low) > 4000
    assert found == set(zip(low.tolist(), high.tolist(), strict=True))


def crowd(seed: int, count: int, bits: int) -> NDArray[np.uint64]:
    """Different hashes that differ in so many bits only, anywhere among the 64: what near-blank pictures have."""
    random = np.random.default_rng(seed)
    places = random.choice(BITS, bits, replace=False).tolist()
    numbers = random.choice(2**bits, min(count, 2**bits), replace=False, shuffle=True)
    hashes = np.full(len(numbers), random.integers(0, 2**63), np.uint64)
    for i, place in enumerate(places):
        hashes ^= (numbers >> i & 1).astype(np.uint64) << np.uint64(place)
    return hashes


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), count=st.integers(1, 120), bits=st.integers(1, 20), within=st.integers(0, 8),
    few=st.integers(1, 6),
)  # fmt: skip
def test_crowds_are_settled_as_one_row_after_the_other_would_be(
    seed: int, count: int, bits: int, within: int, few: int
) -> None:
    """With crowds and blocks of a few rows, so that a hundred rows go all the ways that a million go."""
    hashes = crowd(seed, count, bits)
    ids = np.random.default_rng(seed).permutation(len(hashes)).astype(np.uint64)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("CROWD", few), ("SORTING", 0.01)):
            patch.setattr(pairs_room, name, value)
        patch.setattr(room, "CROWD", few)
        patch.setattr(room, "FIRST_BLOCK", few)
        found = near_duplicates(hashes, ids, within)
    assert found.tolist() == by_hand(hashes.tolist(), ids.tolist(), within)


@pytest.mark.parametrize("bits", [16, 18, 24, 32])
@pytest.mark.parametrize("within", [2, 4])
def test_a_crowd_takes_no_more_for_each_row_than_a_smaller_one(
    bits: int, within: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comparisons are counted, not seconds: each with each would be 7,500 a row of 15,000 and 30,000 of 60,000."""
    compared: list[int] = []

    def counted(one: NDArray[np.uint64], other: NDArray[np.uint64], distance: int) -> NDArray[np.bool_]:
        near = np.bitwise_count(one ^ other) <= distance
        compared.append(near.size)
        return near

    for where in (room, pairs_room):
        monkeypatch.setattr(where, "are_near", counted)
    per_row = []
    for rows in (15_000, 60_000):
        compared.clear()
        ids = np.random.default_rng(6).permutation(rows).astype(np.uint64)
        keeper = near_duplicates(crowd(5, rows, bits), ids, within)
        assert compared
        assert 0 < (keeper == -1).sum() <= rows
        per_row.append(sum(compared) / rows)
    assert max(per_row) < 2000
    assert per_row[1] < 3 * per_row[0] + 300, "four times the rows, and not four times the work for each"


def test_the_order_of_rows_does_not_matter() -> None:
    hashes, random = families(1, 500, 3), np.random.default_rng(1)
    ids = random.permutation(2**20)[:500].astype(np.uint64)
    keeper = near_duplicates(hashes, ids, 3)
    named = {int(ids[i]): int(ids[k]) for i, k in enumerate(keeper.tolist()) if k >= 0}
    order = random.permutation(500)
    again = near_duplicates(hashes[order], ids[order], 3)
    assert {int(ids[order[i]]): int(ids[order[k]]) for i, k in enumerate(again.tolist()) if k >= 0} == named
    assert len(named) > 50


def test_a_chain_keeps_both_ends() -> None:
    """0 - 0b1 - 0b11: at distance 1 the middle goes, the ends are 2 apart and stay."""
    chain = np.array([0b11, 0b1, 0b0], np.uint64)
    assert near_duplicates(chain, np.array([3, 2, 1], np.uint64), 1).tolist() == [-1, 2, -1]
    assert near_duplicates(chain, np.array([3, 1, 2], np.uint64), 1).tolist() == [1, -1, 1]


@pytest.mark.parametrize("within", [-1, 9])
def test_a_distance_that_finds_anything_is_refused(within: int) -> None:
    with pytest.raises(ValueError, match="choose 0 to 8"):
        Filters(near_duplicate_bits=within)


def shipped_pictures(style: str, count: int) -> list[Image.Image]:
    table = pq.read_table(Path(PATH), columns=["style", "image"], filters=[("style", "=", style)])
    return [Image.open(io.BytesIO(data)).convert("RGB") for data in table["image"].to_pylist()[:count]]


def recompressed(image: Image.Image) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=60)
    return Image.open(out)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((image.width * 2 // 3, image.height * 2 // 3)),
        recompressed,
        lambda image: ImageEnhance.Brightness(image).enhance(0.92),
        lambda image: image.convert("L").convert("RGB"),
    ],
    ids=["smaller", "recompressed", "darker", "grey"],
)
def test_a_picture_that_was_worked_over_stays_within_three_bits(change: object) -> None:
    assert callable(change)
    pictures = shipped_pictures("3d render", 60)
    apart = [distance(perceptual_hash(image), perceptual_hash(change(image))) for image in pictures]
    assert np.mean(np.array(apart) <= 3) > 0.9, apart


def test_as_many_bits_are_above_the_median_as_below_it() -> None:
    """So two hashes differ in an even number of bits: a distance of 3 finds what 2 finds."""
    hashes = [perceptual_hash(image) for image in shipped_pictures("soft cartoon", 30)]
    assert {value.bit_count() for value in hashes} == {32}


def test_drawings_of_unlike_colours_share_a_hash() -> None:
    """Why recipes of drawings look for no near duplicates."""
    red, blue = (Image.new("RGB", (64, 64), "white") for _ in range(2))
    red.paste("#ff0000", (10, 20, 40, 50))
    blue.paste("#4c4c4c", (10, 20, 40, 50))
    assert perceptual_hash(red) == perceptual_hash(blue)


def test_unlike_pictures_are_far_apart() -> None:
    hashes = [perceptual_hash(image) for image in shipped_pictures("3d render", 100)]
    apart = [distance(one, other) for i, one in enumerate(hashes) for other in hashes[:i]]
    assert np.median(apart) > 20


def test_a_hash_does_not_change() -> None:
    """Manifests hold it: another hash would find no twins between old rows and new."""
    picture = Image.new("L", (96, 64), 30)
    picture.paste(200, (10, 5, 50, 60))
    picture.paste(120, (60, 30, 90, 40))
    assert perceptual_hash(picture) == 14139679625290726324
    assert perceptual_hash(picture.convert("RGBA")) == perceptual_hash(picture)
