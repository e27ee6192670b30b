"""Regions stand for the same words and boxes in the stored caption, whichever way they were packed."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd1b.corpus.columns import tidied
from ssd1b.corpus.filters import clean
from ssd1b.corpus.region_columns import packed_columns
from ssd1b.corpus.regions import CHUNK, EXPRESSION, FIELDS, MOST, clean_phrase, pack, unpack

BOX = [0.1, 0.2, 0.5, 0.75, 0.9]
SPACES = [" ", "\t", "\n", "\x1c", "\x85", "\xa0", "\u2003", "\u3000"]
letters = st.text(st.sampled_from([*"ab,é中🍎", " ", *SPACES]), max_size=24)
phrases = st.tuples(st.integers(0, 24), st.integers(0, 24)).map(lambda ends: [float(min(ends)), float(max(ends))])


@settings(max_examples=500)
@given(letters, st.data())
def test_a_phrase_keeps_its_words_where_spaces_go(caption: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(caption)))
    end = data.draw(st.integers(start, len(caption)))
    words = caption[start:end].split()
    found = clean_phrase(caption, start, end)
    assert (found is None) == (not words)
    if found is not None:
        stored = " ".join(caption.split())
        assert stored[slice(*found)] == " ".join(words)
        first = caption[:start] + caption[start:end][: len(caption[start:end]) - len(caption[start:end].lstrip())]
        assert stored[: found[0]].split() == first.split(), "the same words, not others that read alike"


def test_an_untidy_caption_of_grit() -> None:
    raw = "  two \t dogs\nand  a cat "
    chunk = [float(raw.index("a cat")), float(len(raw)), *BOX]
    expression = [float(raw.index("two")), float(raw.index("a cat")), *BOX]
    (stored,) = clean([raw])
    one, other = unpack(pack([chunk], [expression], raw) or ())
    assert (one.kind, stored[one.start : one.end]) == (CHUNK, "a cat")
    assert (other.kind, stored[other.start : other.end]) == (EXPRESSION, "two dogs and")
    assert pack([[0.0, 2.0, *BOX]], None, raw) is None, "a phrase of spaces"


numbers = st.one_of(st.floats(allow_nan=True), st.floats(0, 1), st.integers(0, 20).map(float), st.none())
whole = st.builds(lambda phrase, box: [*phrase, *box], phrases, st.sampled_from([BOX, [0, 0, 1, 1, 1], [0.5] * 5]))
region = st.one_of(whole, whole, whole, st.lists(numbers, max_size=9), st.none())
rows = st.lists(st.tuples(letters | st.none(), *[st.lists(region, max_size=4) | st.none()] * 2), max_size=8)


def in_columns(rows: list[Any], kind: pa.DataType) -> list[Any]:
    caption = pa.array([row[0] for row in rows], pa.string())
    chunks, expressions = (pa.array([row[i] for row in rows], kind) for i in (1, 2))
    return packed_columns(chunks, expressions, caption, tidied(caption.fill_null(""))).to_pylist()


@settings(max_examples=300)
@given(rows)
def test_a_batch_is_packed_as_its_rows_are(rows: list[Any]) -> None:
    found = in_columns(rows, pa.list_(pa.list_(pa.float64())))
    assert found == [packed and list(packed) for packed in (pack(row[1], row[2], row[0] or "") for row in rows)]
    assert in_columns(rows, pa.large_list(pa.large_list(pa.float64()))) == found


def test_slices_halves_and_columns_of_another_kind() -> None:
    caption = pa.array(["a cat", "é  a dog", "", "a cow"])
    chunks = pa.array([[[0.0, 5.0, *BOX]], [[3.0, 8.0, *BOX]], None, [[1.0, 5.0, *BOX]]])
    tidy = tidied(caption)
    rows = packed_columns(chunks, None, caption, tidy).to_pylist()
    assert [row and row[1:3] for row in rows] == [[0, 5], [2, 7], None, [2, 5]]
    for start in range(4):
        part = [column.slice(start, 2) for column in (chunks, caption, tidy)]
        assert packed_columns(part[0], None, *part[1:]).to_pylist() == rows[start : start + 2]
    fixed = pa.array(chunks.to_pylist(), pa.list_(pa.list_(pa.float64(), 7)))
    assert packed_columns(fixed, None, caption, tidy).to_pylist() == rows
    assert packed_columns(None, None, caption, tidy).null_count == 4
    assert packed_columns(pa.nulls(4), pa.array(["x"] * 4), caption, tidy).null_count == 4


def test_what_does_not_fit_into_sixteen_bits_is_left_out() -> None:
    caption = "x" * (MOST + 10)
    given_rows = [[0.0, float(MOST), *BOX], [0.0, float(MOST + 1), *BOX]]
    assert [region.end for region in unpack(pack(given_rows, None, caption) or ())] == [MOST]
    column = pa.array([given_rows], pa.list_(pa.list_(pa.float64())))
    (packed,) = packed_columns(column, None, pa.array([caption]), pa.array([caption])).to_pylist()
    assert packed == list(pack(given_rows, None, caption) or ())
    padded = " " * 100 + "x" * 20
    assert pack([[100.0, 120.0, *BOX]], None, padded) == (CHUNK, 0, 20, *np.rint(np.array(BOX) * MOST).astype(int))


@pytest.mark.parametrize("column", ["noun_chunks", "ref_exps"])
def test_batches_are_packed_without_a_python_object_for_each_region(
    column: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows with single spaces never reach the row's own rule."""
    monkeypatch.setattr("ssd1b.corpus.region_columns.pack", lambda *_: pytest.fail("packed row by row"))
    caption = pa.array(["a cat", "a café", "中文 一只猫", "an 🍎, red"] * 50)
    columns = {"noun_chunks": None, "ref_exps": None, column: pa.array([[[0.0, 5.0, *BOX]]] * 200)}
    found = packed_columns(**columns, caption=caption, tidy=caption)
    assert len(found.flatten()) == 200 * FIELDS
