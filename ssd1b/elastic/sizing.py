"""How many slices a global batch is dealt in, where the recipe leaves it open.

Small slices cost the feed, which moves slices and not rows; large ones leave workers idle, because each step is padded
with null slices up to a multiple of the world size. The choice is made once, when a run begins: it is part of the
order.
"""

from dataclasses import dataclass

# G rows of a global batch, V slices, R = G / V rows of a slice, n workers


@dataclass(frozen=True)
class Choice:
    """One way to cut a global batch."""

    slices: int
    """V."""
    rows: int
    """R."""
    waste: tuple[tuple[int, float], ...]
    """(n, null slices per slice) for every world size of the range; at 0.25 a step takes a quarter longer."""

    @property
    def mean_waste(self) -> float:
        """Over the world sizes."""
        return sum(share for _, share in self.waste) / len(self.waste)

    @property
    def worst(self) -> tuple[int, float]:
        """The world size that wastes most (of those, the smallest), and how much."""
        return max(self.waste, key=lambda entry: (entry[1], -entry[0]))


def choices(global_batch: int, num_workers: tuple[int, int]) -> tuple[Choice, ...]:
    """Return every way to cut a global batch that gives each of the most workers a slice, largest slices first.

    num_workers is the fewest and the most.

    Raises:
        ValueError: no whole batch, no such range, or more workers than rows.
    """
    fewest, most = num_workers
    if not 1 <= fewest <= most:
        raise ValueError(f"num_workers {num_workers}: give the fewest, at least 1, and the most, at least as many")
    if global_batch < most:
        raise ValueError(
            f"a global batch of {global_batch} rows cannot give each of {most} workers a row: "
            f"raise global_batch to at least {most}, or lower num_workers"
        )
    return tuple(
        Choice(
            slices,
            global_batch // slices,
            tuple((n, -(-slices // n) * n / slices - 1) for n in range(fewest, most + 1)),
        )
        for slices in range(most, global_batch + 1)
        if global_batch % slices == 0
    )


def choose(global_batch: int, num_workers: tuple[int, int], rows_wanted: int) -> Choice:
    """Return the cut that wastes least, over the world sizes, of those whose slices have at least `rows_wanted` rows.

    A slice never has more than G over the most workers. Where that is less than wanted, it is as large as it may be.

    Raises:
        ValueError: as `choices`, or rows_wanted is below 1.
    """
    if rows_wanted < 1:
        raise ValueError(f"rows of a slice {rows_wanted}: give at least 1")
    cuts = choices(global_batch, num_workers)
    large = [cut for cut in cuts if cut.rows >= rows_wanted] or cuts[:1]
    return min(large, key=lambda cut: (cut.mean_waste, cut.worst[1], cut.slices))


def table(cuts: tuple[Choice, ...]) -> str:
    """Return lines to read: V, R, mean and worst waste of each cut."""
    lines = ["slices  rows  mean waste  worst waste"]
    for cut in cuts:
        n, share = cut.worst
        lines.append(f"{cut.slices:6}  {cut.rows:4}  {cut.mean_waste:10.1%}  {share:11.1%} at {n} workers")
    return "\n".join(lines)
