"""Where the work of an engine is queued: a stream for steps, a side stream for adapters, and captured CUDA graphs.

`HostLane` does everything at once and in order: what the tests run the runner on, against a stand-in for the library.
`CudaLane` has never run.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

Call = Callable[[], None]


class Lane(Protocol):
    """A queue of work on one device."""

    device: torch.device

    @property
    def handle(self) -> int:
        """The stream for steps, as libraries in C take it."""
        ...

    def run(self) -> AbstractContextManager[None]:
        """Return a context whose work comes after the caller's and after uploads, and before the caller's next."""
        ...

    def upload(self) -> AbstractContextManager[None]:
        """Return a context whose copies come after the steps queued so far and before the next one."""
        ...

    def capture(self, call: Call) -> Call:
        """Return what does the same as a call that only queues work, at less cost. It ran once before."""
        ...

    def hand_over(self, tensor: Tensor) -> Tensor:
        """Return a tensor made in `run` to the caller: its memory is not reused while the caller's work reads it."""
        ...

    def wait(self) -> None:
        """Wait until the steps queued so far are done."""
        ...


class HostLane:
    """Everything at once, in the order of the calls."""

    device = torch.device("cpu")

    @property
    def handle(self) -> int:
        """No stream (see `Lane`)."""
        return 0

    @contextmanager
    def run(self) -> Iterator[None]:
        """Do the work now (see `Lane`)."""
        yield

    @contextmanager
    def upload(self) -> Iterator[None]:
        """Copy now (see `Lane`)."""
        yield

    def capture(self, call: Call) -> Call:
        """Return the call (see `Lane`)."""
        return call

    def hand_over(self, tensor: Tensor) -> Tensor:
        """Return the tensor (see `Lane`)."""
        return tensor

    def wait(self) -> None:
        """Everything is done already (see `Lane`)."""


class CudaLane:
    """Two streams of one GPU. The caller holds the runner's lock in every method. Never ran."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.steps: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.side: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.stepped: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.uploaded: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]

    @property
    def handle(self) -> int:
        """The stream for steps (see `Lane`)."""
        return int(self.steps.cuda_stream)

    @contextmanager
    def run(self) -> Iterator[None]:
        """Queue on the stream for steps (see `Lane`). An event that was never recorded is waited for in no time."""
        caller = torch.cuda.current_stream(self.device)
        self.steps.wait_stream(caller)
        self.steps.wait_event(self.uploaded)
        with torch.cuda.stream(self.steps):
            yield
        self.stepped.record(self.steps)
        caller.wait_event(self.stepped)

    @contextmanager
    def upload(self) -> Iterator[None]:
        """Queue on the side stream (see `Lane`)."""
        self.side.wait_event(self.stepped)
        with torch.cuda.stream(self.side):
            yield
        self.uploaded.record(self.side)

    def capture(self, call: Call) -> Call:
        """Return the replay of a captured graph (see `Lane`).

        Other threads go on using the GPU while it is captured, hence the mode.
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.steps, capture_error_mode="thread_local"):
            call()
        return graph.replay

    def hand_over(self, tensor: Tensor) -> Tensor:
        """Tell the allocator who else uses the tensor (see `Lane`)."""
        tensor.record_stream(torch.cuda.current_stream(self.device))
        return tensor

    def wait(self) -> None:
        """Block until the stream is empty (see `Lane`)."""
        self.steps.synchronize()


def lane_on(device: torch.device | str) -> Lane:
    """Return a lane of a device."""
    device = torch.device(device)
    return CudaLane(device) if device.type == "cuda" else HostLane()
