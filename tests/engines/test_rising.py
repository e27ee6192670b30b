"""The engine that changes over to a better one while it serves: no call fails, no adapter is lost."""

import threading
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ssd1b.adapters.adapter import Adapter
from ssd1b.engines.bank import Layout
from ssd1b.engines.rising import RisingEngine

ROWS = tuple(torch.zeros(1) for _ in range(7))


class Fake:
    """Answers with its number; remembers its adapters."""

    device = torch.device("cpu")
    slots, rank = 4, 8
    layout = Layout(())

    def __init__(self, number: int) -> None:
        self.number, self.name = number, f"fake {number}"
        self.adapters: dict[int, Adapter] = {}

    def __call__(self, *rows: Tensor) -> Tensor:
        assert len(rows) == len(ROWS)
        return torch.tensor(self.number)

    def load_adapter(self, slot: int, adapter: Adapter | None) -> None:
        if adapter is None:
            self.adapters.pop(slot, None)
        else:
            self.adapters[slot] = adapter


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_it_serves_with_the_first_until_the_better_one_is_there() -> None:
    first, better, asked, go = Fake(1), Fake(2), threading.Event(), threading.Event()
    answers = iter([None, None])

    def rise() -> Fake | None:
        asked.set()
        if (answer := next(answers, better)) is better:
            go.wait(10)
        return answer

    engine = RisingEngine(first, rise, every_s=0.01)
    assert asked.wait(10)
    a, b, c = (Adapter(name, {}) for name in "abc")
    for slot, adapter in ((1, a), (2, b), (3, c)):
        engine.load_adapter(slot, adapter)
    engine.load_adapter(2, None)
    assert engine(*ROWS) == 1
    assert engine.name == "fake 1"
    go.set()
    until(lambda: engine.name == "fake 2")
    assert engine(*ROWS) == 2
    assert better.adapters == {1: a, 3: c}
    engine.load_adapter(2, b)
    assert better.adapters[2] is b
    assert 2 not in first.adapters
    engine.close()


def test_adapters_that_come_while_it_changes_are_in_the_better_one() -> None:
    """Against a better engine that is slow to take adapters, from several threads at once."""
    better = Fake(2)
    plain = better.load_adapter

    def slowly(slot: int, adapter: Adapter | None) -> None:
        time.sleep(0.02)
        plain(slot, adapter)

    better.load_adapter = slowly  # type: ignore[method-assign]
    go = threading.Event()
    engine = RisingEngine(Fake(1), lambda: better if go.wait(10) else None, every_s=0.01)
    engine.load_adapter(1, Adapter("early", {}))
    threads = [
        threading.Thread(target=engine.load_adapter, args=(slot, Adapter(f"late {slot}", {}))) for slot in (2, 3)
    ]
    go.set()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: engine.name == "fake 2")
    assert sorted(better.adapters) == [1, 2, 3]
    engine.close()


def test_where_nothing_better_can_be_had_the_first_goes_on_and_the_log_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def rise() -> None:
        raise ValueError("tensorrt_rtx cannot build for sm90")

    engine = RisingEngine(Fake(1), rise, every_s=0.01)
    engine.thread.join(10)
    assert not engine.thread.is_alive()
    assert engine(*ROWS) == 1
    assert "fake 1 goes on serving: tensorrt_rtx cannot build for sm90" in caplog.text
    engine.close()
