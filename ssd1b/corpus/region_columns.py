"""`regions.pack` for a batch of rows at once: millions of regions a second instead of a hundred thousand.

The two are written apart, this one in Arrow and numpy, and a test holds them to the same answer.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssd1b.corpus.columns import flags
from ssd1b.corpus.regions import CHUNK, EXPRESSION, FIELDS, MOST, pack

# N rows of a batch, R regions of all of them

KIND = pa.list_(pa.uint16())
NUMBERS = 7
SPACE = ord(" ")
Rows = NDArray[np.int64]
Found = tuple[Rows, NDArray[np.float64]]
"""The row of each region, shape (R,), and its numbers, shape (R, 7)."""
Packed = tuple[Rows, NDArray[np.uint16]]
"""The row of each region, shape (R,), and the region packed, shape (R, 8)."""
Letters = tuple[NDArray[np.uint32], Rows]


def packed_columns(
    noun_chunks: pa.Array | None, ref_exps: pa.Array | None, caption: pa.Array, tidy: pa.Array
) -> pa.Array:
    """Return the packed regions of each row as lists of uint16, null where a row has none. Shape (N,).

    A column that the source does not have is None. `caption` is as the source writes it, `tidy` has single spaces.
    """
    given = [column for column in (noun_chunks, ref_exps) if column is not None]
    # in a caption with single spaces the words of a phrase stand where they will stand
    tidy_N = flags(pc.equal(caption, tidy)) & all(is_regular(column.type) for column in given)
    letters = letters_of(caption)
    found = [valid(kind, column, letters, tidy_N) for kind, column in ((CHUNK, noun_chunks), (EXPRESSION, ref_exps))]
    odd = np.flatnonzero(~tidy_N)
    if len(odd):
        found.append(packed_rows(odd, noun_chunks, ref_exps, caption))
    row_R = np.concatenate([row_R for row_R, _ in found])
    order_R = np.argsort(row_R, kind="stable")  # row by row; within one, chunks before expressions and both as given
    packed_R8 = np.concatenate([packed_R8 for _, packed_R8 in found])[order_R]
    per_row_N = np.bincount(row_R, minlength=len(caption))
    ends = np.concatenate([[0], np.cumsum(per_row_N * FIELDS)]).astype(np.int32)
    return pa.ListArray.from_arrays(ends, pa.array(packed_R8.ravel()), type=KIND, mask=pa.array(per_row_N == 0))


def packed_rows(odd: Rows, noun_chunks: pa.Array | None, ref_exps: pa.Array | None, caption: pa.Array) -> Packed:
    """Pack rows one by one."""
    wanted = pa.array(odd)
    chunks, expressions, texts = (
        [None] * len(odd) if each is None else each.take(wanted).to_pylist()
        for each in (noun_chunks, ref_exps, caption)
    )
    rows = [pack(one, other, text or "") or () for one, other, text in zip(chunks, expressions, texts, strict=True)]
    numbers = np.array([number for row in rows for number in row], np.uint16)
    return np.repeat(odd, [len(row) // FIELDS for row in rows]), numbers.reshape(-1, FIELDS)


def letters_of(caption: pa.Array) -> Letters:
    """Return the code points of all captions, one behind the other, and where each one begins; null is empty."""
    first_N = np.concatenate([[0], np.cumsum(pc.utf8_length(caption).fill_null(0).to_numpy())])
    together = "".join(text for text in caption.to_pylist() if text)
    return np.frombuffer(together.encode("utf-32-le"), np.uint32), first_N


def is_regular(kind: pa.DataType) -> bool:
    """Say whether a column is what GRIT's are, lists of lists of numbers."""
    for _ in range(2):
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            return False
        kind = kind.value_type
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def valid(kind: int, column: pa.Array | None, letters: Letters, tidy_N: NDArray[np.bool_]) -> Packed:
    """Return the valid regions of a column, of rows whose caption is tidy."""
    row_R, number_R7 = regions_of(column)
    valid_R, start_R, end_R = phrases(row_R, number_R7, letters)
    valid_R &= tidy_N[row_R]
    row_R, number_R7 = row_R[valid_R], number_R7[valid_R]
    packed_R8 = np.empty((len(row_R), FIELDS), np.uint16)
    packed_R8[:, 0], packed_R8[:, 1], packed_R8[:, 2] = kind, start_R[valid_R], end_R[valid_R]
    packed_R8[:, 3:] = np.rint(number_R7[:, 2:] * MOST)
    return row_R, packed_R8


def regions_of(column: pa.Array | None) -> Found:
    """Return what of a regular column has seven numbers; NaN stands for null."""
    if column is None or not is_regular(column.type):
        return np.zeros(0, np.int64), np.zeros((0, NUMBERS))
    row_R = pc.list_parent_indices(column).to_numpy()
    regions = column.flatten()
    seven_R = flags(pc.equal(pc.list_value_length(regions), NUMBERS))
    values = regions.filter(pa.array(seven_R)).flatten()
    numbers = pc.cast(values, pa.float64(), safe=False).fill_null(np.nan).to_numpy()
    return row_R[seven_R].astype(np.int64), numbers.reshape(-1, NUMBERS)


def phrases(row_R: Rows, number_R7: NDArray[np.float64], letters: Letters) -> tuple[NDArray[np.bool_], Rows, Rows]:
    """Return which regions are valid, and the start and end of each one's words, in tidy captions. All shape (R,)."""
    letter, first_N = letters
    start_R, end_R, left_R, top_R, right_R, bottom_R, sure_R = number_R7.T  # NaN fails each of these comparisons
    valid_R = (start_R == np.trunc(start_R)) & (end_R == np.trunc(end_R)) & (start_R >= 0) & (start_R < end_R)
    valid_R &= end_R <= np.diff(first_N)[row_R]
    valid_R &= (left_R >= 0) & (left_R < right_R) & (right_R <= 1) & (top_R >= 0) & (top_R < bottom_R) & (bottom_R <= 1)
    valid_R &= (sure_R >= 0) & (sure_R <= 1)
    if not valid_R.any():
        return valid_R, np.zeros(len(row_R), np.int64), np.zeros(len(row_R), np.int64)
    # a space at an end of a phrase is not part of it; with single spaces there is one at most
    from_R = np.where(valid_R, start_R, 0).astype(np.int64)
    to_R = np.where(valid_R, end_R, 1).astype(np.int64)
    at_R = np.where(valid_R, first_N[row_R], 0)
    from_R += letter[at_R + from_R] == SPACE
    to_R -= letter[at_R + to_R - 1] == SPACE
    return valid_R & (from_R < to_R) & (to_R <= MOST), from_R, to_R
