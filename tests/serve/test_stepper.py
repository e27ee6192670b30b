"""The stepper thread with a toy engine: joining, leaving, cancelling, failing."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

import pytest
from toy_painter import POISON, SQUARE, WIDE, ToyPainter, ToyRow

from serve.steps import stepper as module
from serve.steps.scheduler import Limits
from serve.steps.stepper import FAILURES, Stepper
from ssd1b.sizes import Size


@pytest.fixture
def painter() -> ToyPainter:
    return ToyPainter()


@pytest.fixture
def stepper(painter: ToyPainter) -> Iterator[Stepper[ToyRow]]:
    stepper = Stepper(painter.advance, Limits(rows=3))
    yield stepper
    painter.gate.set()
    stepper.close()


def added(
    painter: ToyPainter, stepper: Stepper[ToyRow], seed: int, size: Size = SQUARE, steps: int = 2, words: int = 0
) -> "Future[ToyRow]":
    """Queue a row."""
    row = ToyRow(seed, size, 0, steps, words=words)
    return stepper.add(row, painter.need(row))


def test_rows_of_unlike_steps_share_batches(painter: ToyPainter, stepper: Stepper[ToyRow]) -> None:
    painter.gate.clear()
    promises = [added(painter, stepper, i, steps=steps) for i, steps in enumerate((4, 1, 2))]
    painter.gate.set()
    assert [promise.result(5).steps_made for promise in promises] == [4, 1, 2]
    assert max(len(batch) for batch in painter.batches) == 3
    assert sum(len(batch) for batch in painter.batches) == 7


def test_unlike_groups_never_meet(painter: ToyPainter, stepper: Stepper[ToyRow]) -> None:
    painter.gate.clear()
    promises = [added(painter, stepper, i, size=size) for i, size in enumerate((SQUARE, WIDE, SQUARE))]
    painter.gate.set()
    for promise in promises:
        promise.result(5)
    assert all(len({row.size for row in batch}) == 1 for batch in painter.batches)


def test_rows_of_unlike_text_never_meet(painter: ToyPainter, stepper: Stepper[ToyRow]) -> None:
    painter.gate.clear()
    promises = [added(painter, stepper, i, words=words) for i, words in enumerate((3, 90, 3))]
    painter.gate.set()
    for promise in promises:
        promise.result(5)
    assert all(len({row.words for row in batch}) == 1 for batch in painter.batches)


def test_a_cancelled_row_leaves_and_the_others_go_on(painter: ToyPainter, stepper: Stepper[ToyRow]) -> None:
    painter.gate.clear()
    gone, stays = (added(painter, stepper, i, steps=3) for i in range(2))
    assert gone.cancel()
    painter.gate.set()
    assert stays.result(5).steps_made == 3
    # at most the step that was running when it was cancelled
    assert sum(row.seed == 0 for batch in painter.batches for row in batch) <= 1


def test_a_failing_step_fails_its_rows_only_and_after_a_few_the_replica_is_unwell() -> None:
    painter = ToyPainter(fail=True)
    stepper = Stepper(painter.advance, Limits(rows=1))
    for _ in range(FAILURES - 1):
        with pytest.raises(RuntimeError, match="toy engine is broken"):
            added(painter, stepper, 0, steps=1).result(5)
    stepper.check()
    with pytest.raises(RuntimeError, match="toy engine is broken"):
        added(painter, stepper, 0, steps=1).result(5)
    with pytest.raises(RuntimeError, match="denoising steps failed"):
        stepper.check()
    painter.fail = False
    assert added(painter, stepper, 0, steps=1).result(5).steps_made == 1
    stepper.check()
    stepper.close()


def test_close_cancels_what_waits_and_ends_the_thread(painter: ToyPainter) -> None:
    stepper = Stepper(painter.advance, Limits(rows=1))
    painter.gate.clear()
    promise = added(painter, stepper, 0, steps=1000)
    threading.Timer(0.05, painter.gate.set).start()
    stepper.close()
    assert promise.cancelled()
    with pytest.raises(RuntimeError, match="has ended"):
        stepper.check()


def test_many_threads_may_add_at_once(painter: ToyPainter, stepper: Stepper[ToyRow]) -> None:
    results: list[int] = []

    def caller(seed: int) -> None:
        time.sleep(seed % 3 / 1000)
        results.append(added(painter, stepper, seed, steps=1 + seed % 5).result(10).seed)

    threads = [threading.Thread(target=caller, args=(seed,)) for seed in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(40))


def test_one_row_that_breaks_the_engine_does_not_take_strangers_with_it(
    painter: ToyPainter, stepper: Stepper[ToyRow]
) -> None:
    painter.gate.clear()
    promises = [added(painter, stepper, seed) for seed in (1, POISON, 3)]
    painter.gate.set()
    with pytest.raises(RuntimeError, match="toy engine is broken"):
        promises[1].result(5)
    assert [promises[i].result(5).steps_made for i in (0, 2)] == [2, 2]
    stepper.check()


def test_who_watches_a_row_is_told_of_every_step_and_cannot_stop_the_others(
    painter: ToyPainter, stepper: Stepper[ToyRow]
) -> None:
    seen: list[int] = []
    row, bad = ToyRow(1, SQUARE, 0, 4), ToyRow(2, SQUARE, 0, 4)
    watched = stepper.add(row, painter.need(row), watch=lambda row: seen.append(row.steps_made))
    broken = stepper.add(bad, painter.need(bad), watch=lambda _: [][0])
    assert watched.result(5).steps_made == 4
    assert seen == [1, 2, 3, 4]
    with pytest.raises(IndexError):
        broken.result(5)
    stepper.check()


def test_work_and_fill_are_told(painter: ToyPainter, stepper: Stepper[ToyRow]) -> None:
    painter.gate.clear()
    row = ToyRow(1, SQUARE, 0, 5)
    slow = stepper.add(row, painter.need(row), "batch")
    quick = added(painter, stepper, 2, size=WIDE, steps=3)
    assert stepper.work("batch") == 5 * 16 * 16
    assert stepper.work("interactive") == 3 * 8 * 24
    assert stepper.work() == 5 * 256 + 3 * 192
    assert len(stepper) == 2
    painter.gate.set()
    slow.result(5), quick.result(5)
    assert (stepper.work(), len(stepper)) == (0, 0)
    assert 0 < stepper.fill <= 1 / 3
    assert stepper.pace.rate


def test_a_step_that_does_not_end_makes_the_replica_unwell(
    painter: ToyPainter, stepper: Stepper[ToyRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    painter.gate.clear()
    promise = added(painter, stepper, 1)
    time.sleep(0.05)
    stepper.check()
    monkeypatch.setattr(module, "STUCK_S", 0.01)
    with pytest.raises(RuntimeError, match=r"running for more than 0\.01 s"):
        stepper.check()
    painter.gate.set()
    promise.result(5)
