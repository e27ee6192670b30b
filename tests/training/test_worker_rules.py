"""When a run is started once more and when it is not: rules over errors and starts, without a cluster."""

from pathlib import Path
from typing import Any, cast

import pytest
import ray.exceptions
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssd1b.elastic.feed import Attempt
from ssd1b.elastic.slices import Order
from ssd1b.recipes.distill import Distillation
from ssd1b.training import journal
from ssd1b.training.task import Task
from ssd1b.training.worker import ERRORS, FUTILE, PATIENCE, ahead, given_up, hopeless, of_a_peer, work


def of_a_task(cause: Exception) -> Exception:
    """What a worker sees when a task that reads for it raises."""
    error: Any = ray.exceptions.RayTaskError("read", "traceback", cause).as_instanceof_cause()
    assert isinstance(error, Exception)
    return error


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (ValueError("the gradient is not finite"), True),
        (OSError(28, "no space left"), True),
        (FileNotFoundError("latents"), True),
        (of_a_task(ValueError("no such bucket")), True),
        (of_a_task(FileNotFoundError("part-0")), True),
        (RuntimeError("Connection closed by peer"), False),
        (ConnectionResetError("reset"), False),
        (TimeoutError("late"), False),
        (ray.exceptions.GetTimeoutError("late"), False),
        (ray.exceptions.ObjectLostError("ab" * 28, None, ""), False),
        (ray.exceptions.ActorDiedError(), False),
        (of_a_task(ConnectionResetError("reset")), False),
        (torch.distributed.DistNetworkError("gone"), False),
        (RuntimeError("CUDA error: out of memory"), False),
    ],
    ids=repr,
)
def test_only_what_would_come_again_ends_a_run(error: Exception, ends: bool) -> None:
    assert hopeless(error) is ends


@pytest.mark.parametrize(
    ("error", "collateral"),
    [
        (RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"), True),
        (RuntimeError("NCCL error: unhandled system error"), True),
        (torch.distributed.DistBackendError("aborted"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (torch.OutOfMemoryError("CUDA out of memory"), False),
        (MemoryError(), False),
    ],
    ids=repr,
)
def test_a_peers_end_is_not_ones_own_error(error: Exception, collateral: bool) -> None:
    assert of_a_peer(error) is collateral


@pytest.mark.parametrize("with_group", [True, False])
def test_an_error_after_the_group_was_taken_away_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_group: bool
) -> None:
    """Ray Train destroys the survivors' group while they still run: their next collective raises a ValueError."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)

    def enter(*_: object) -> None:
        if not with_group:
            torch.distributed.destroy_process_group()
        torch.distributed.all_reduce(torch.zeros(1))
        raise ValueError("the recipe is wrong")

    monkeypatch.setattr("ssd1b.training.worker.enter", enter)
    told = Task(config=cast(Distillation, None), root=tmp_path, order=cast(Order, None), launched_s=0.0)
    try:
        with pytest.raises(ValueError, match="the recipe is wrong" if with_group else "has not been initialized"):
            work({"task": told})
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    assert journal.failure(tmp_path) == ("the recipe is wrong" if with_group else None)
    assert not (tmp_path / ERRORS).exists()


def starts(*first_steps: int) -> list[Attempt]:
    return [Attempt(first_step=first, world_size=2, time_s=0.0) for first in first_steps]


@given(before=st.lists(st.integers(0, 9), max_size=5), killed=st.integers(0, FUTILE))
def test_workers_that_are_killed_time_and_again_are_started_again(before: list[int], killed: int) -> None:
    history = starts(*before, *[10] * killed, 10)
    if killed < FUTILE:
        assert given_up(Path("/nowhere"), history, len(history)) is None
    else:
        assert "20 starts in a row from step 10 got no further" in str(
            given_up(Path("/nowhere"), history, len(history))
        )


@pytest.mark.parametrize("kills", [0, 3])
def test_a_start_that_fails_by_itself_is_not_repeated_for_ever(tmp_path: Path, kills: int) -> None:
    note = journal.Lines(tmp_path / ERRORS)
    history = starts(0, 0, 8, *[16] * kills)
    note.add(attempt=0, error="long ago, elsewhere")
    for _ in range(PATIENCE):
        history += starts(16)
        assert given_up(tmp_path, history, len(history)) is None
        for _rank in range(2):
            note.add(attempt=len(history) - 1, error=f"CUDA error {len(history)}")
    history += starts(16)
    said = given_up(tmp_path, history, len(history))
    assert said == f"4 starts from step 16 got no further; the last said: CUDA error {len(history) - 1}"
    assert given_up(tmp_path, [*history, *starts(24)], len(history) + 1) is None, "progress clears it"
    assert given_up(tmp_path, history[-1:], len(history)) is None, "a job that is started again tries again"


def test_rows_are_asked_for_before_they_are_wanted() -> None:
    asked: list[int] = []

    def rows() -> Any:
        for i in range(3):
            asked.append(i)
            yield {"slot": [i]}

    pulled = ahead(rows())
    for _ in range(1000):
        if asked:
            break
        torch.zeros(10).sum()
    assert [row["slot"][0] for row in pulled] == [0, 1, 2]
    assert list(ahead(iter([]))) == []


def test_an_error_of_the_first_rows_is_raised_where_they_are_wanted() -> None:
    def rows() -> Any:
        raise FileNotFoundError("part-0")
        yield {}

    with pytest.raises(FileNotFoundError, match="part-0"):
        next(ahead(rows()))
