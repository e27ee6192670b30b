"""Rows of many tables in one order: what Arrow's own take gives, whatever the columns hold."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd1b.elastic.gather import Pick, gather

WIDTHS = {"equal": lambda _: 8, "unequal": lambda i: i % 5, "empty": lambda _: 0}


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    width=st.sampled_from(sorted(WIDTHS)),
    nulls=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_gather_is_take(sizes: list[int], width: str, nulls: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    tables, count = [], 0
    for size in sizes:
        ids = range(count, count + size)
        data = [bytes([i % 251]) * WIDTHS[width](i) if not (nulls and i == 2) else None for i in ids]
        whole = pa.table({"id": ids, "data": pa.array(data, pa.binary()), "captions": [[f"{i}"] for i in ids]})
        # a table of several chunks, of which one is a slice
        tables.append(pa.concat_tables([whole.slice(0, size // 2), whole.slice(size // 2)]))
        count += size
    asked = random.integers(0, count, random.integers(1, 30))
    starts = np.cumsum([0, *sizes])
    owner = np.searchsorted(starts, asked, side="right") - 1
    picks = [
        Pick(tables[one], asked[owner == one] - starts[one], np.flatnonzero(owner == one)) for one in np.unique(owner)
    ]
    found = gather(picks)
    assert found.equals(pa.concat_tables(tables).take(pa.array(asked)))
    found.validate(full=True)
