"""How many slices: never too large for the most workers, large enough for the feed, and the least waste of those."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd1b.elastic.sizing import choices, choose, table
from ssd1b.elastic.slices import slots_per_step


@given(batch=st.integers(1, 600), fewest=st.integers(1, 20), more=st.integers(0, 20), wanted=st.integers(1, 40))
def test_the_choice_is_the_best_of_those_allowed(batch: int, fewest: int, more: int, wanted: int) -> None:
    most = fewest + more
    if batch < most:
        with pytest.raises(ValueError, match=f"cannot give each of {most} workers a row"):
            choose(batch, (fewest, most), wanted)
        return
    chosen = choose(batch, (fewest, most), wanted)
    assert chosen.slices * chosen.rows == batch
    assert chosen.rows * most <= batch, "larger than G over the most workers"

    def waste(slices: int) -> float:
        sizes = range(fewest, most + 1)
        return sum(slots_per_step(slices, n) / slices - 1 for n in sizes) / len(sizes)

    allowed = [v for v in range(most, batch + 1) if batch % v == 0 and batch // v >= wanted]
    if allowed:
        assert chosen.rows >= wanted
        assert chosen.mean_waste == pytest.approx(min(map(waste, allowed)))
    else:
        assert chosen.slices == min(v for v in range(most, batch + 1) if batch % v == 0), "as large as it may be"


def test_what_a_cluster_of_64_is_told() -> None:
    chosen = choose(2048, (8, 64), 8)
    assert (chosen.slices, chosen.rows) == (256, 8)
    assert chosen.worst == (63, pytest.approx(0.23, abs=0.01))
    assert dict(chosen.waste)[64] == 0
    assert "   256     8        7.3%        23.0% at 63 workers" in table(choices(2048, (8, 64)))


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match=r"num_workers \(3, 2\)"):
        choose(8, (3, 2), 1)
    with pytest.raises(ValueError, match="rows of a slice 0"):
        choose(8, (1, 2), 0)
