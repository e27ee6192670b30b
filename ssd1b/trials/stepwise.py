"""The loop of one worker, a step at a time, without a cluster: so that it can take turns with others and be timed.

It is the very loop that Ray Train runs on a worker. It runs in a thread of its own and is held where it asks for the
first slice of a step.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType

import torch
from torch import nn

from ssd1b.elastic.feed import Attempt
from ssd1b.training.loop import Rows, Task, Worker, distill


class EnoughError(Exception):
    """No more steps are wanted."""


class Stepwise:
    """One worker on slices that lie in memory. A context manager; the loop ends with it, at whatever step."""

    def __init__(self, task: Task, steps: Callable[[int], Sequence[Rows]]) -> None:
        """steps returns the slices of a step, by its number from 0. The recipe's stage must outlast all steps."""
        # of one worker either sum is autograd's own; this one shows the student to `wrap`
        self.task, self.steps = replace(task, config=replace(task.config, gradients="reduced")), steps
        self.student: nn.Module = nn.Identity()
        """The model that is trained, once the first stage is entered."""
        self.wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.reached: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self.run, name="loop")

    def __enter__(self) -> "Stepwise":
        """Load the models; returns when the loop asks for its first slice."""
        self.thread.start()
        self.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wanted.put(False)
        self.thread.join()

    def step(self) -> None:
        """Let the loop take one step; returns when it asks for the first slice of the next.

        Raises whatever the loop raises.
        """
        self.wanted.put(True)
        self.wait()

    def wait(self) -> None:
        if error := self.reached.get():
            raise error

    def run(self) -> None:
        starts = [Attempt(first_step=0, world_size=1, time_s=0.0)]
        worker = Worker(rank=0, device=torch.device("cpu"), starts=starts, wrap=self.wrap)
        try:
            distill(self.task, worker, self.slices())
        except EnoughError:
            return
        except BaseException as error:  # raised again where the step was asked for
            self.reached.put(error)

    def wrap(self, student: nn.Module) -> nn.Module:
        self.student = student
        return student

    def slices(self) -> Iterator[Rows]:
        step = 0
        while True:
            self.reached.put(None)
            if not self.wanted.get():
                raise EnoughError
            yield from self.steps(step)
            step += 1
