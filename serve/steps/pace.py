"""How long steps take, as measured while they are made: the rate of this machine, and batches not worth filling.

An engine that was built for some batch sizes pads the others up to the next one, so that five rows may cost what eight
do. Nobody has to know which sizes those are: the times tell.
"""

from collections import defaultdict, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import median

KEPT = 9
"""Times kept of each shape: their median stands one stall in two steps."""
GAIN = 1.1
"""A smaller batch must make so many times the row-steps a second: less is noise."""
LOOK_AGAIN = 50
"""Every so many times that a batch could be cut it is not, so that a time that has become wrong is measured again."""


@dataclass(frozen=True)
class Shape:
    """What the time of a step depends on."""

    group: Hashable
    engine_rows: int
    """Rows of the engine's call, two for a picture with guidance."""
    adapted: bool
    """Whether any of them has an adapter."""
    rows: int
    """Pictures that get a step further."""
    cells: int = 1
    """Latent positions of each."""


class Pace:
    """Step times by shape, the latest few of each."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[Hashable, int, bool], deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._rates: dict[tuple[Hashable, int], float] = {}
        self._cuts = 0

    def record(self, shape: Shape, seconds: float) -> None:
        """Keep the time of a step."""
        times = self._seconds[shape.group, shape.engine_rows, shape.adapted]
        times.append(seconds)
        self._rates[shape.group, shape.rows] = shape.rows * shape.cells / median(times)

    def seconds(self, shape: Shape) -> float | None:
        """Return how long a step of this shape takes, None before two of them were made: the first may compile."""
        times = self._seconds.get((shape.group, shape.engine_rows, shape.adapted))
        return median(times) if times and len(times) > 1 else None

    @property
    def rate(self) -> float | None:
        """The most cell-steps a second seen, in batches of any size: what a full load can count on. None before any."""
        return max(self._rates.values(), default=None)

    def best(self, shapes: Sequence[Shape]) -> int:
        """Return how many rows to take, of batches of 1, 2, ... rows: all, unless fewer make more row-steps a second.

        Of a size that was not measured nothing is known, so where all of them is such a size all are taken.
        """
        full = self.seconds(shapes[-1])
        if full is None or len(shapes) == 1:
            return len(shapes)
        timed = [(shape.rows / seconds, shape.rows) for shape in shapes[:-1] if (seconds := self.seconds(shape))]
        rate, rows = max(timed, default=(0.0, 0))
        if rate < GAIN * shapes[-1].rows / full:
            return len(shapes)
        self._cuts += 1
        return len(shapes) if self._cuts % LOOK_AGAIN == 0 else rows
