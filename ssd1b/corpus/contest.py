"""Contenders that do the same work in turns, so that what else the machine does meets all of them alike.

Rates are items per second of CPU time, over all threads and ended children: what a core gives, whoever shares it. The
wall time of the same turns is kept beside it.
"""

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ssd1b.command import show
from ssd1b.corpus import rivals

REASON_CHARACTERS = 120


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One contender's work in one round."""

    items: int
    cpu_s: float
    wall_s: float
    bytes: int = 0
    """Of what came out: equal for all who did the same work."""

    @property
    def per_core(self) -> float:
        """Items per second of CPU."""
        return self.items / self.cpu_s


Contender = Callable[[int], Turn]
"""Does the work of a round, by its number."""


def timed(work: Callable[[], tuple[int, int]]) -> Turn:
    """Run work of this process that returns items and bytes."""
    started, used = time.perf_counter(), time.process_time()
    items, size = work()
    return Turn(items=items, bytes=size, cpu_s=time.process_time() - used, wall_s=time.perf_counter() - started)


def take_turns(contenders: Mapping[str, Contender], rounds: int) -> dict[str, list[Turn]]:
    """Return the turns of each contender; the first round, in which files and libraries warm up, is not counted.

    Raises:
        AssertionError: two contenders of a round did not do the same amount of work.
    """
    turns: dict[str, list[Turn]] = {name: [] for name in contenders}
    for round_ in range(rounds + 1):
        for name, contender in contenders.items():
            turn = contender(round_ % rounds)
            if round_:
                turns[name].append(turn)
        show(f"round {round_} of {rounds}")
    for place in range(rounds):
        assert len({turns[name][place].items for name in turns}) == 1, "contenders read unlike numbers of items"
    return turns


def standing(title: str, unit: str, turns: Mapping[str, list[Turn]], own: str) -> dict[str, dict[str, float]]:
    """Print the table and return it: medians over the rounds, and the median ratio of `own` to each in the same round.

    A ratio above 1 says that `own` gets more out of a core.
    """
    show(f"{title:44s}{unit + '/s per core':>20s}{unit + '/s':>14s}{'ratio':>8s}")
    table = {}
    for name, taken in turns.items():
        ratios = [mine.per_core / theirs.per_core for mine, theirs in zip(turns[own], taken, strict=True)]
        row = {
            "per_core": statistics.median(turn.per_core for turn in taken),
            "wall": statistics.median(turn.items / turn.wall_s for turn in taken),
            "ratio": statistics.median(ratios),
        }
        table[name] = {key: round(value, 3) for key, value in row.items()}
        show(f"{name:44s}{row['per_core']:20.1f}{row['wall']:14.1f}{row['ratio']:8.2f}")
    return table


class Others:
    """Another Python, with libraries that this project does not depend on. Ends with the `with` block."""

    def __init__(self, python: str, scratch: Path) -> None:
        """Start it.

        Raises:
            ValueError: there is no such program.
        """
        told = {"HF_HOME": str(scratch / "hub"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        try:
            self.process = subprocess.Popen(
                [python, str(Path(rivals.__file__))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=(scratch / "others.log").open("a"),
                env=os.environ | told,
                text=True,
            )
        except OSError as error:
            raise ValueError(f"others={python!r} cannot be run ({error}): give the path of a Python") from error
        self.log = scratch / "others.log"
        answer = self.ask({"pass": "versions"})
        self.found: dict[str, str] = answer["found"]
        """Version of each library that can be imported."""
        self.missing: dict[str, str] = answer["missing"]

    def __enter__(self) -> "Others":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a question of rivals.py.

        Raises:
            ValueError: the program has ended; the message holds the last line it wrote.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise ValueError(f"{question['pass']} has failed: {(self.log.read_text().splitlines() or ['no word'])[-1]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def turn(self, question: Mapping[str, Any]) -> Turn:
        """Return a pass as a turn."""
        return Turn(**self.ask(question))


def left_out(pythons: list[Others]) -> dict[str, str]:
    """Return the libraries that nobody can import, each with the name that pip knows it by and the reason."""
    reasons = {}
    for module, package in (rivals.PACKAGES | rivals.OPTIONAL).items():
        if not any(module in python.found for python in pythons):
            why = [python.missing[module][:REASON_CHARACTERS] for python in pythons]
            reasons[package] = "; ".join(why) or f"pip install {package} in an environment of its own: --set others=..."
            show(f"left out: {package} ({reasons[package]})")
    return reasons
