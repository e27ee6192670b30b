"""How many rows a batch is filled up to, on a backend that loses time whenever the shape of its inputs changes.

While rows join and leave every few steps, a graph would see another shape in most calls. A row that leaves may as well
be replaced by a copy whose output nobody reads, until another joins in its place. That costs its share of the call; so
copies are kept as long as they have cost less than the change that they save (the ski-rental rule: at most twice what
the best choice in hindsight costs). Both costs are measured, since they depend on model and machine: where a row costs
more than a change, nothing is filled up.
"""

from collections import deque
from collections.abc import Hashable
from statistics import median

KEPT = 9
"""Changes whose cost is remembered."""


class Steady:
    """For one graph. `rows` and `took` are called in turn, around each of its calls."""

    def __init__(self) -> None:
        self._kind: Hashable = None
        self._size = 0
        self._waste_s = 0.0
        self._row_s = 0.0
        self._changes_s: deque[float] = deque(maxlen=KEPT)
        self._first_s: float | None = None  # what the first call of this shape took
        self._calls = 0  # of this shape

    def rows(self, count: int, kind: Hashable) -> int:
        """Return how many rows to run where there are so many; kind is what else its shape depends on."""
        waste_s = self._waste_s + (self._size - count) * self._row_s
        change_s = median(self._changes_s) if self._changes_s else 0.0
        if kind == self._kind and (count == self._size or (count < self._size and waste_s <= change_s)):
            self._waste_s = waste_s if count < self._size else 0.0
        else:
            self._kind, self._size, self._waste_s, self._calls = kind, count, 0.0, 0
        return self._size

    def took(self, seconds: float) -> None:
        """Record what the call took. What a shape's first call takes longer than its second is what a change costs."""
        self._calls += 1
        if self._calls == 1:
            self._first_s = seconds
            return
        if self._calls == 2 and self._first_s is not None:
            self._changes_s.append(max(0.0, self._first_s - seconds))
        self._row_s = seconds / self._size
