"""What a call needs before the GPU is asked: batch buckets, padding, which profile, what is kept. Pure.

Every batch is padded up to a bucket, so that a handful of buffers and captured CUDA graphs serve all of them.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from torch import Tensor

Key = TypeVar("Key")
Value = TypeVar("Value")
Shape = tuple[int, ...]
Span = tuple[Shape, Shape]
"""The least and the most shape that a profile allows an input."""


def bucket_of(rows: int, most: int) -> int:
    """Return the batch that so many rows are padded up to: the next power of two, or the most that the plan takes.

    At worst half of the rows are padding, on average a quarter; few buckets mean few captured graphs.
    """
    assert 1 <= rows <= most, (rows, most)
    return int(min(most, 1 << (rows - 1).bit_length()))


def chunks(rows: int, most: int) -> Iterator[slice]:
    """Yield slices of at most `most` rows that cover all rows in order."""
    for first in range(0, rows, most):
        yield slice(first, min(first + most, rows))


def fill(buffer: Tensor, rows: Tensor) -> None:
    """Copy rows into a buffer of at least as many; what is left repeats the last row.

    Padding of real rows stays finite whatever the model computes; rows do not see each other, so what it holds does not
    matter beyond that.
    """
    count = len(rows)
    buffer[:count].copy_(rows, non_blocking=True)
    if count < len(buffer):
        buffer[count:].copy_(rows[-1:].expand(len(buffer) - count, *rows.shape[1:]), non_blocking=True)


def profile_of(shapes: Mapping[str, Shape], profiles: Sequence[Mapping[str, Span]]) -> int:
    """Return the number of the first profile that allows all of these shapes.

    Raises:
        ValueError: none does; it names the inputs that no profile takes.
    """
    for number, spans in enumerate(profiles):
        if all(within(shape, spans[name]) for name, shape in shapes.items()):
            return number
    outside = [
        f"{name} {shape}, allowed {' or '.join(f'{low}..{high}' for low, high in spans_of(profiles, name))}"
        for name, shape in shapes.items()
        if not any(within(shape, spans[name]) for spans in profiles)
    ]
    raise ValueError(f"the plan does not take {'; '.join(outside) or shapes}: build one whose `Serving` covers it")


def spans_of(profiles: Sequence[Mapping[str, Span]], name: str) -> list[Span]:
    """Return what the profiles allow an input, each once."""
    return list(dict.fromkeys(spans[name] for spans in profiles))


def within(shape: Shape, span: Span) -> bool:
    low, high = span
    return len(shape) == len(low) and all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))


class Recent(Generic[Key, Value]):
    """The values used last, made on demand; the one not used for longest goes when there are too many."""

    def __init__(self, make: Callable[[Key], Value], most: int, before_drop: Callable[[], None]) -> None:
        assert most >= 1
        self.make, self.most, self.before_drop = make, most, before_drop
        self.values: OrderedDict[Key, Value] = OrderedDict()

    def __getitem__(self, key: Key) -> Value:
        if key in self.values:
            self.values.move_to_end(key)
            return self.values[key]
        if len(self.values) >= self.most:  # before the new one is made: both may be large
            self.before_drop()  # it may still be at work
            self.values.popitem(last=False)
        value = self.values[key] = self.make(key)
        return value
