"""Who builds: a lease on a shared file system, so that a plan is built once per cluster and not once per replica.

Leases of a plan are numbered files. To take one is to create the file with the next number, which only one of all
contenders can; nobody removes or renames another's. The owner touches its own file while it works. A lease is free when
it was never taken, was given back, or has not been touched for a while: its owner is dead or out of reach. Should such
an owner come back, two build the same plan and the first to finish is kept; that costs a build and harms nothing.

Only exclusive creation and modification times are relied on, which NFS has, and no locks. Ages are differences of times
that the file server gave, so clocks of the hosts need not agree.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import uuid4

GIVEN_BACK = ".back"


@dataclass(frozen=True)
class Pace:
    """How often an owner shows that it lives, and after how long without it is taken for dead, seconds."""

    beat_s: float = 5.0
    stale_s: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < 3 * self.beat_s <= self.stale_s:
            raise ValueError(f"{self}: stale_s must be at least three beats, or one late beat costs a build")


@dataclass(frozen=True)
class Seen:
    """The newest lease of a plan, as somebody saw it; number 0 is none yet."""

    number: int = 0
    owner: str = ""
    age_s: float = 0.0
    given_back: bool = False


@dataclass(frozen=True)
class Build:
    """It is ours to build, under the lease of this number."""

    number: int


@dataclass(frozen=True)
class Building:
    """Another builds. Serve with another backend meanwhile, and ask again."""

    by: str
    graph: str = ""


def decide(seen: Seen, pace: Pace) -> Build | Building:
    """Return who is to build, from what was seen."""
    if seen.number == 0 or seen.given_back or seen.age_s > pace.stale_s:
        return Build(seen.number + 1)
    return Building(seen.owner)


def look(folder: Path) -> Seen:
    """Return the newest lease in a plan's folder of leases."""
    names = [path.name for path in folder.glob("[0-9]*")] if folder.is_dir() else []
    if not names:
        return Seen()
    newest = max(names, key=number_of)
    path = folder / newest
    with suppress(FileNotFoundError):  # given back since: the next look will see it
        return Seen(number_of(newest), path.read_text() or "somebody", now(folder) - path.stat().st_mtime,
                    newest.endswith(GIVEN_BACK))  # fmt: skip
    return Seen(number_of(newest), "", 0.0, given_back=True)


def number_of(name: str) -> int:
    return int(name.removesuffix(GIVEN_BACK))


def now(folder: Path) -> float:
    """Return the time by the clock of whoever keeps the folder: that of a file made just now."""
    probe = folder / f"now.{uuid4().hex}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def take(folder: Path, number: int, owner: str) -> bool:
    """Create the lease of that number. False if another was faster."""
    folder.mkdir(parents=True, exist_ok=True)
    ours = folder / f"{number:06d}"
    try:
        with ours.open("x") as file:
            file.write(owner)
    except FileExistsError:
        return False
    if ours.with_name(ours.name + GIVEN_BACK).exists():  # it was taken and given back since we looked
        ours.unlink()
        return False
    return True


def owner_here() -> str:
    return f"{socket.gethostname()} process {os.getpid()}"


class Held:
    """A lease that is ours, kept alive by a thread: a build lets other threads run meanwhile."""

    def __init__(self, folder: Path, number: int, pace: Pace) -> None:
        self.path, self.pace = folder / f"{number:06d}", pace
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.beat, name="plan lease", daemon=True)

    def beat(self) -> None:
        while not self.over.wait(self.pace.beat_s):
            with suppress(OSError):  # a file server may be away for a while: then we are taken for dead, no more
                os.utime(self.path)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.thread.join()
        with suppress(FileNotFoundError):  # the leases were cleared away meanwhile, which gives all of them back
            self.path.rename(self.path.with_name(self.path.name + GIVEN_BACK))


@contextmanager
def contend(folder: Path, pace: Pace) -> Iterator[Build | Building]:
    """Yield Build and hold the lease, or yield who holds it."""
    decision = decide(look(folder), pace)
    if isinstance(decision, Build) and not take(folder, decision.number, owner_here()):
        decision = Building(look(folder).owner or "somebody")
    if isinstance(decision, Build):
        with Held(folder, decision.number, pace):
            yield decision
    else:
        yield decision
