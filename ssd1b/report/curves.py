"""How a student's loss fell: points a stage, as data that MLflow may have had and a folder may hold."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

FILE = "curves.json"
NAMES: Mapping[str, str] = {"loss": "training loss", "validation_loss": "held-out loss"}
"""Metric of a distillation -> what the page calls it."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value."""

    step: int
    """Counted from the start of the stage."""
    value: float


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One metric of one stage."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a distillation."""

    name: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True, kw_only=True)
class Training:
    """The curves of the run that made a student, or why there are none."""

    run: str = ""
    """MLflow's id."""
    stages: tuple[Stage, ...] = ()
    absent: str = ""
    """Why there is nothing to draw, a whole sentence."""


NOT_KEPT = Training(absent=f"No curves: nothing tells of the run that trained this model ({FILE} is not there).")


def write(training: Training, folder: Path) -> None:
    """Put curves.json into a folder."""
    (folder / FILE).write_text(json.dumps(asdict(training)))


def read(folder: Path) -> Training:
    """Return the curves that a folder holds; where it holds none, the answer says so.

    Raises:
        ValueError: its curves.json cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return NOT_KEPT
    try:
        return TypeAdapter(Training).validate_json(path.read_text())
    except ValidationError as error:
        raise ValueError(f"{path} holds no curves: {error.errors()[0]['msg']}; remove it to go on without") from error
