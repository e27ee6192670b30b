"""Files by which tasks on other nodes tell a test what they do, and places where they wait there to be killed.

A test that kills a node has to know that work was going on there, and just how far it was: without that it may well
kill an idle node and prove nothing.
"""

import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST_S = 90.0


def this_node() -> str:
    """Return the id of the node that a task runs on."""
    import ray

    return ray.get_runtime_context().get_node_id()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Mark:
    """`what` (a shard, a part) has come to `place` (began, ended, held-...) on a node, in a process."""

    what: str
    place: str
    node: str
    pid: int


@dataclass(frozen=True)
class Marks:
    """The marks in a folder, which the tasks of all nodes reach."""

    folder: Path

    def leave(self, what: str, place: str) -> None:
        """Called in a task."""
        (self.folder / f"{what}|{place}|{this_node()}|{os.getpid()}|{uuid.uuid4().hex[:8]}").touch()

    def all(self, place: str, node: str | None = None) -> list[Mark]:
        found = [path.name.split("|") for path in self.folder.glob(f"*|{place}|*")]
        marks = [Mark(what, where, on, int(pid)) for what, where, on, pid, _ in found]
        return [mark for mark in marks if node in (None, mark.node)]

    def condemn(self, node: str) -> None:
        """From now on tasks on this node wait where they come to a place."""
        (self.folder / "condemned").write_text(node)

    def condemned(self) -> bool:
        """Say whether this is the condemned node. Called in a task."""
        chosen = self.folder / "condemned"
        return chosen.exists() and chosen.read_text() == this_node()

    def claim(self, places: Sequence[str]) -> str | None:
        """Return a place that no other task has been given, or None. Called in a task."""
        for place in places:
            try:
                (self.folder / f"claimed-{place}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return place
        return None

    def hold(self, what: str, place: str) -> None:
        """Wait to be killed. Called in a task."""
        self.leave(what, f"held-{place}")
        time.sleep(LONGEST_S)
        raise AssertionError(f"nobody killed {what} at {place!r}")


class Killer(threading.Thread):
    """Kills a node of a cluster once work waits there at all of the places; `seen` is asked just before.

    Use as a context around the work. `killed` stays None if it did not come to that.
    """

    def __init__(
        self, cluster: Any, marks: Marks, places: Sequence[str], victim: Callable[[], Any], seen: Callable[[], Any]
    ) -> None:
        super().__init__(daemon=True)
        self.cluster, self.marks, self.places, self.victim, self.seen = cluster, marks, places, victim, seen
        self.killed: Any = None
        self.before: Any = None
        self.work_ended = threading.Event()

    def run(self) -> None:
        while (victim := self.victim()) is None:
            if self.work_ended.wait(0.02):
                return
        self.marks.condemn(victim.node_id)
        while not all(self.marks.all(f"held-{place}", victim.node_id) for place in self.places):
            if self.work_ended.wait(0.02):
                return
        self.before = self.seen()
        self.cluster.remove_node(victim, allow_graceful=False)
        assert not victim.any_processes_alive()
        self.killed = victim

    def __enter__(self) -> "Killer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.work_ended.set()
        self.join(30)
