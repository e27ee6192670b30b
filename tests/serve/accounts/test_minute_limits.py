"""The sliding minute: never more than the limit within any 60 seconds, and the wait it tells is the shortest."""

from hypothesis import given
from hypothesis import strategies as st

from serve.accounts.limits import WINDOW_S, Full, Room, room

Arrivals = list[tuple[float, int]]


def within(past: Arrivals, now: float) -> Arrivals:
    return [(at, count) for at, count in past if at > now - WINDOW_S]


def test_no_limit_counts_nothing() -> None:
    assert room(None, [(0.0, 99)], 5, 1.0) == Room()


def test_the_last_one_that_fits_and_the_first_that_does_not() -> None:
    assert room(3, [(10.0, 2)], 1, 20.0) == Room(3, 0, 50.0)
    assert room(3, [(10.0, 2)], 2, 20.0) == Full(3, 50.0)
    assert room(3, [], 3, 20.0) == Room(3, 0, 60.0)
    assert room(3, [], 4, 20.0) == Full(3, None)


@given(
    limit=st.integers(1, 8),
    steps=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 4)), max_size=40),
)
def test_any_arrivals(limit: int, steps: list[tuple[int, int]]) -> None:
    admitted: Arrivals = []
    now = 0.0
    for pause, wanted in steps:
        now += pause
        past = within(admitted, now)
        answer = room(limit, past, wanted, now)
        if isinstance(answer, Room):
            admitted.append((now, wanted))
            assert answer.remaining == limit - sum(count for _, count in within(admitted, now))
        elif answer.wait_s is None:
            assert wanted > limit
        else:
            then = now + answer.wait_s
            assert isinstance(room(limit, within(past, then), wanted, then), Room)
            sooner = then - 0.5
            assert sooner < now or isinstance(room(limit, within(past, sooner), wanted, sooner), Full)
    for at, _ in admitted:
        assert sum(count for _, count in within([one for one in admitted if one[0] <= at], at)) <= limit
