"""Requests that run now and have a name of their caller's: what /progress tells of and /interrupt ends.

A name belongs to the account that gave it, so that nobody sees or stops a stranger's work; without accounts a name that
is hard to guess does the same. They live in this process, as the requests do.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from serve.errors import RequestError


@dataclass
class Task:
    """One that runs."""

    interrupted: asyncio.Event = field(default_factory=asyncio.Event)
    made: int = 0
    of: int = 0
    preview: bytes | None = None
    started: float = 0.0

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        return self.made / self.of if self.of else 0.0


class Tasks:
    """Those of one front."""

    def __init__(self) -> None:
        self._tasks: dict[tuple[str, str], Task] = {}

    @contextmanager
    def running(self, account: str, name: str | None) -> Iterator[Task]:
        """Keep a task while its request runs; one without a name is not kept.

        Raises:
            RequestError: the account has a request of this name already.
        """
        task = Task(started=asyncio.get_running_loop().time())
        if name is None:
            yield task
            return
        if (account, name) in self._tasks:
            raise RequestError(
                f"force_task_id '{name}' runs already: give each request its own", "force_task_id", "conflict", 409
            )
        self._tasks[account, name] = task
        try:
            yield task
        finally:
            del self._tasks[account, name]

    def find(self, account: str, name: str | None) -> Task | None:
        """Return the account's task of a name, or without one its last that runs."""
        if name is not None:
            return self._tasks.get((account, name))
        return next((task for (owner, _), task in reversed(self._tasks.items()) if owner == account), None)

    def of(self, account: str) -> int:
        """Return how many of the account's run."""
        return sum(owner == account for owner, _ in self._tasks)


def interrupted() -> RequestError:
    return RequestError("The request was interrupted", "force_task_id", "interrupted", 409)
