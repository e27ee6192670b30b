"""What workers agree on: whoever is told what and when, all leave after the same step, and sums are sums."""

import threading
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd1b.training.notice import KINDS, Kind, Notice
from ssd1b.training.together import Together

STEPS = 6


class Meeting:
    """torch.distributed.all_reduce over threads."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.barrier = threading.Barrier(world_size)
        self.brought: list[torch.Tensor] = []
        self.lock = threading.Lock()

    def all_reduce(self, values: torch.Tensor) -> None:
        with self.lock:
            self.brought.append(values.clone())
        self.barrier.wait(10)
        values.copy_(torch.stack(self.brought).sum(0))
        if self.barrier.wait(10) == 0:
            self.brought = []
        self.barrier.wait(10)


class Arrived:
    """A GPU's event, long past."""

    def record(self, stream: None) -> None:
        pass

    def synchronize(self) -> None:
        pass


class AsOnAGpu(Together):
    """Answers when a GPU's have arrived: a step later."""

    def __init__(self, world_size: int, device: torch.device) -> None:
        super().__init__(world_size, device)
        self.later = True


def steps_of_all(told: dict[int, tuple[int, Kind]], world_size: int, kind_of: type[Together]) -> list[list[Any]]:
    """Run so many workers; told maps a rank to the step in which it is told, and what. Returns what each one got."""
    got: list[list[Any]] = [[] for _ in range(world_size)]

    def work(rank: int) -> None:
        together = kind_of(world_size, torch.device("cpu"))
        for step in range(STEPS):
            at, kind = told.get(rank, (STEPS, "grow"))
            notice = Notice(kind=kind) if step >= at else None
            parts = {"loss": torch.tensor(float(10 * step + rank)), "task": torch.tensor(1.0)}
            sums, why = together.sum(parts, notice)
            got[rank].append(({name: float(value) for name, value in sums.items()}, why))
            if why:
                return

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "one worker waits for another that has left"
    return got


@pytest.mark.parametrize("later", [False, True])
@settings(max_examples=40, deadline=None)
@given(
    world_size=st.integers(1, 4),
    told=st.dictionaries(st.integers(0, 3), st.tuples(st.integers(0, STEPS), st.sampled_from(KINDS)), max_size=3),
)
def test_all_leave_after_the_same_step(later: bool, world_size: int, told: dict[int, tuple[int, Kind]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.distributed, "all_reduce", Meeting(world_size).all_reduce)
        patch.setattr(torch.cuda, "Event", Arrived)
        patch.setattr(torch.cuda, "current_stream", lambda _: None)
        got = steps_of_all(told, world_size, AsOnAGpu if later else Together)
    heard = {rank: what for rank, what in told.items() if rank < world_size}
    first = min((at for at, _ in heard.values()), default=STEPS)
    assert all(each == got[0] for each in got)
    assert len(got[0]) == min(STEPS, first + 1 + later), "once the first of them was told"
    reasons = [why for _, why in got[0]]
    assert reasons[:-1] == [None] * (len(reasons) - 1)
    if first + 1 + later <= STEPS:
        assert reasons[-1] in {kind for at, kind in heard.values() if at == first}
    for step, (sums, _) in enumerate(got[0]):
        assert sums == {"loss": sum(10.0 * step + rank for rank in range(world_size)), "task": float(world_size)}
