"""The stepper thread with a toy engine: joining, leaving, cancelling, failing."""

import threading
import time
from collections.abc import Iterator

import pytest
from toy_painter import SQUARE, WIDE, ToyPainter, ToyRow

from serve.stepper import FAILURES, Stepper


@pytest.fixture
def painter() -> ToyPainter:
    return ToyPainter()


@pytest.fixture
def stepper(painter: ToyPainter) -> Iterator[Stepper[ToyRow]]:
    stepper = Stepper(painter.advance, capacity=3)
    yield stepper
    painter.gate.set()
    stepper.close()


def test_rows_of_unlike_steps_share_batches(painter: ToyPainter, stepper: Stepper[ToyRow]) -> None:
    painter.gate.clear()
    promises = [stepper.add(ToyRow(i, SQUARE, 0, steps), SQUARE, steps) for i, steps in enumerate((4, 1, 2))]
    painter.gate.set()
    assert [promise.result(5).steps_made for promise in promises] == [4, 1, 2]
    assert max(len(batch) for batch in painter.batches) == 3
    assert sum(len(batch) for batch in painter.batches) == 7


def test_unlike_groups_never_meet(painter: ToyPainter, stepper: Stepper[ToyRow]) -> None:
    painter.gate.clear()
    promises = [stepper.add(ToyRow(i, size, 0, 2), size, 2) for i, size in enumerate((SQUARE, WIDE, SQUARE))]
    painter.gate.set()
    for promise in promises:
        promise.result(5)
    assert all(len({row.size for row in batch}) == 1 for batch in painter.batches)


def test_rows_of_unlike_text_never_meet(painter: ToyPainter, stepper: Stepper[ToyRow]) -> None:
    painter.gate.clear()
    rows = [ToyRow(i, SQUARE, 0, 2, words=words) for i, words in enumerate((3, 90, 3))]
    promises = [stepper.add(row, painter.group(row), 2) for row in rows]
    painter.gate.set()
    for promise in promises:
        promise.result(5)
    assert all(len({row.words for row in batch}) == 1 for batch in painter.batches)


def test_a_cancelled_row_leaves_and_the_others_go_on(painter: ToyPainter, stepper: Stepper[ToyRow]) -> None:
    painter.gate.clear()
    gone, stays = (stepper.add(ToyRow(i, SQUARE, 0, 3), SQUARE, 3) for i in range(2))
    assert gone.cancel()
    painter.gate.set()
    assert stays.result(5).steps_made == 3
    # at most the step that was running when it was cancelled
    assert sum(row.seed == 0 for batch in painter.batches for row in batch) <= 1


def test_a_failing_step_fails_its_rows_only_and_after_a_few_the_replica_is_unwell() -> None:
    painter = ToyPainter(fail=True)
    stepper = Stepper(painter.advance, capacity=1)
    for _ in range(FAILURES - 1):
        with pytest.raises(RuntimeError, match="toy engine is broken"):
            stepper.add(ToyRow(0, SQUARE, 0, 1), SQUARE, 1).result(5)
    stepper.check()
    with pytest.raises(RuntimeError, match="toy engine is broken"):
        stepper.add(ToyRow(0, SQUARE, 0, 1), SQUARE, 1).result(5)
    with pytest.raises(RuntimeError, match="denoising steps failed"):
        stepper.check()
    painter.fail = False
    assert stepper.add(ToyRow(0, SQUARE, 0, 1), SQUARE, 1).result(5).steps_made == 1
    stepper.check()
    stepper.close()


def test_close_cancels_what_waits_and_ends_the_thread(painter: ToyPainter) -> None:
    stepper = Stepper(painter.advance, capacity=1)
    painter.gate.clear()
    promise = stepper.add(ToyRow(0, SQUARE, 0, 1000), SQUARE, 1000)
    threading.Timer(0.05, painter.gate.set).start()
    stepper.close()
    assert promise.cancelled()
    with pytest.raises(RuntimeError, match="has ended"):
        stepper.check()


def test_many_threads_may_add_at_once(stepper: Stepper[ToyRow]) -> None:
    results: list[int] = []

    def caller(seed: int) -> None:
        time.sleep(seed % 3 / 1000)
        results.append(stepper.add(ToyRow(seed, SQUARE, 0, 1 + seed % 5), SQUARE, 1 + seed % 5).result(10).seed)

    threads = [threading.Thread(target=caller, args=(seed,)) for seed in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(40))
