"""Checkpoints written beside the loop: it waits for a copy of the tensors, a thread does the rest.

Never two at a time: whoever saves while the last one is being written waits for it. A kill in between leaves the older
checkpoints and a folder that the next save removes (checkpoint.py). So a kill loses what was done since the last
checkpoint that is whole: an interval, and the steps that were taken while the last one was being written.
"""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ssd1b.training import checkpoint
from ssd1b.training.newest import ReplacedError


class Writer:
    """Saves as `checkpoint.save` does, but returns once the tensors are copied."""

    def __init__(self, keep: int, mine: Callable[[], bool] = lambda: True) -> None:
        """keep: how many checkpoints of a root stay. mine: is the run still this worker's to write to?"""
        self.keep, self.mine = keep, mine
        self.copies: dict[tuple[str, str], Tensor] = {}
        """Where tensors are copied to; kept, since page-locked memory is slow to get."""
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None
        self.saved: list[Path] = []
        """Checkpoints that are whole and that `finished` has not returned yet."""

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what is being written; after an error of the loop's own, that one is raised."""
        if self.thread:
            self.thread.join()
        if error is None:
            self.flush()

    def save(
        self, root: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
    ) -> None:
        """Begin to write `<root>/step-<step>`; the tensors may change as soon as this returns.

        Raises:
            OSError: the checkpoint before this one could not be written.
            ReplacedError: it was no longer this worker's to write.
        """
        self.flush()
        copies = self.copy(tensors)

        def write() -> None:
            try:
                folder = checkpoint.save(root, step, copies, state, self.mine)
                checkpoint.retain(root, self.keep)
                self.saved.append(folder)
            except BaseException as error:  # raised again in the loop's own thread
                self.error = error if self.mine() else ReplacedError("the run has been started again elsewhere")

        self.thread = threading.Thread(target=write, name=f"checkpoint {step}")
        self.thread.start()

    def flush(self) -> None:
        """Wait until nothing is being written.

        Raises:
            OSError: it could not be written.
            ReplacedError: it was no longer this worker's to write.
        """
        if self.thread:
            self.thread.join()
            self.thread = None
        if self.error:
            error, self.error = self.error, None
            raise error

    def finished(self) -> list[Path]:
        """Return the checkpoints that have become whole since this was last asked.

        Raises:
            OSError: one could not be written.
            ReplacedError: one was no longer this worker's to write.
        """
        if self.thread and not self.thread.is_alive():
            self.flush()
        done = list(self.saved)
        del self.saved[: len(done)]  # the thread may have appended since
        return done

    def copy(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Return copies on the host: page-locked where the tensor lies on a GPU, and all of them done."""
        wanted = {(stem, name): tensor.detach() for stem, named in tensors.items() for name, tensor in named.items()}
        fits = {
            key: self.copies[key]
            for key, tensor in wanted.items()
            if key in self.copies and (self.copies[key].shape, self.copies[key].dtype) == (tensor.shape, tensor.dtype)
        }
        self.copies = {
            key: fits[key]
            if key in fits
            else torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda")
            for key, tensor in wanted.items()
        }
        for key, tensor in wanted.items():
            self.copies[key].copy_(tensor, non_blocking=True)
        for device in {tensor.device for tensor in wanted.values() if tensor.device.type == "cuda"}:
            torch.cuda.synchronize(device)
        return {stem: {name: self.copies[stem, name] for name in named} for stem, named in tensors.items()}
