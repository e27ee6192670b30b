"""Rows of a manifest that say again what another row says: the same key, the same bytes, nearly the same picture.

Looked for over all parts at once, since a twin can lie anywhere. Only identities are held: 32 bytes per row, and while
near duplicates are searched about 130 more.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ssd1b.corpus import manifest
from ssd1b.corpus.near_duplicates import NONE, near_duplicates
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.corpus.samples import Samples
from ssd1b.recipes.ingest import Ingest

# N rows of all parts, M rows that are still in


def drop_duplicates(folder: Path, config: Ingest, tally: Counter[str], samples: Samples) -> None:
    """Rewrite the parts without duplicates, and count and sample what goes.

    Of equal pictures the one with the smallest sample_id stays, whatever the order in which tasks ended.
    """
    parts = manifest.part_files(folder)
    tables = [pq.read_table(part, columns=["sample_id", "sha256", "phash"], partitioning=None) for part in parts]
    if not tables:
        return
    id_N, phash_N = (np.concatenate([table[name].to_numpy() for table in tables]) for name in ("sample_id", "phash"))
    sha256_N2 = np.concatenate([digests(table["sha256"]) for table in tables])
    rows_of_part = [len(table) for table in tables]
    del tables
    again_N = repeats(np.arange(len(id_N)), id_N)
    twin_N = np.zeros_like(again_N)
    in_M = np.flatnonzero(~again_N)
    twin_N[in_M] = repeats(id_N[in_M], *sha256_N2[in_M].T)
    keeper_N = np.full(len(id_N), NONE, np.int64)
    if config.filters.near_duplicate_bits is not None:
        in_M = np.flatnonzero(~again_N & ~twin_N)
        keeper_M = near_duplicates(phash_N[in_M], id_N[in_M], config.filters.near_duplicate_bits)
        keeper_N[in_M] = np.where(keeper_M == NONE, NONE, in_M[keeper_M])
    goes_N = again_N | twin_N | (keeper_N != NONE)
    start = 0
    for part, count in zip(parts, rows_of_part, strict=True):
        here = slice(start, start + count)
        start += count
        if not goes_N[here].any():
            continue
        rows = pq.read_table(part, partitioning=None).to_pylist()
        for row, again, twin, keeper in zip(rows, again_N[here], twin_N[here], keeper_N[here].tolist(), strict=True):
            if again:
                reason, detail = Reason.DUPLICATE_KEY, row["sha256"]
            elif twin:
                reason, detail = Reason.DUPLICATE, row["sha256"]
            elif keeper != NONE:
                reason, detail = Reason.NEAR_DUPLICATE, f"sample_id {id_N[keeper]} stays"
            else:
                continue
            tally.update({reason.value: 1})
            reject = Reject(reason=reason, source=row["source"], key=row["key"], detail=detail)
            samples.add(reject, row["image"], max_pixels=config.max_pixels)
        left = [row for row, goes in zip(rows, goes_N[here], strict=True) if not goes]
        manifest.write_part(left, part) if left else part.unlink()


def digests(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return the first 128 bits of SHA-256 in hexadecimal as two numbers, shape (rows, 2)."""
    whole = bytes.fromhex("".join(column.to_pylist()))
    return np.frombuffer(whole, np.uint64).reshape(-1, 4)[:, :2]


def repeats(rank_N: NDArray[Any], *value_N: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which entries equal another of lower rank in all values, as booleans of shape (N,)."""
    order_N = np.lexsort((rank_N, *value_N))
    repeated_N = np.zeros(len(rank_N), bool)
    repeated_N[order_N[1:]] = np.all([value[order_N[1:]] == value[order_N[:-1]] for value in value_N], axis=0)
    return repeated_N
