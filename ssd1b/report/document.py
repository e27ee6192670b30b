"""evaluation.json as a page reads it: typed, with None wherever something could not be measured."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ssd1b.evaluation.extractor import Extractor
from ssd1b.evaluation.result import SCHEMA
from ssd1b.evaluation.seen import Conditions

FILE = "evaluation.json"


@dataclass(frozen=True, kw_only=True)
class Number:
    """One measured number with the ends of its 95 % interval; None is what could not be measured."""

    value: float | None
    low: float | None = None
    high: float | None = None
    count: int | None = None
    """Prompts it is over."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """See ssd1b.evaluation.measure.Group."""

    by: str
    name: str
    prompts: int
    numbers: Mapping[str, Number]


@dataclass(frozen=True, kw_only=True)
class Distance:
    """See ssd1b.evaluation.distances.Distance."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    pictures: int
    references: int
    extractor: Extractor
    warning: str


@dataclass(frozen=True, kw_only=True)
class Gap:
    """See ssd1b.evaluation.bias.Gap."""

    of: str
    best: str
    worst: str
    gap: Number
    by_chance: float | None
    p_value: float | None


@dataclass(frozen=True, kw_only=True)
class Adherence:
    """See ssd1b.evaluation.bias.Adherence."""

    what: str
    of: str
    share: Number
    by: Mapping[str, Number]
    chance: float | None


@dataclass(frozen=True, kw_only=True)
class Leak:
    """See ssd1b.evaluation.bias.Leak."""

    probe: str
    of: str
    prompts: int
    score: Number
    distance: Number
    middle: Number
    border: Number
    pull: Number | None


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """See ssd1b.recipes.evaluate.Window."""

    name: str
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """See ssd1b.evaluation.result.Bounded."""

    window: Bounds
    value: float | None
    inside: bool


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """See ssd1b.evaluation.result.Pictured."""

    prompt: str
    seed: int
    novelty: str
    style: str
    category: str
    probe: str
    plain: int | None
    score_teacher: float | None
    score_student: float | None
    distance: float | None
    pictures: Mapping[str, str]

    @property
    def gained(self) -> float | None:
        """The student's score less the teacher's; None where either was not measured."""
        if self.score_student is None or self.score_teacher is None:
            return None
        return self.score_student - self.score_teacher


@dataclass(frozen=True, kw_only=True)
class Document:
    """One evaluation."""

    schema: int
    numbers: Mapping[str, float | None]
    conditions: Mapping[str, Conditions]
    extractors: Mapping[str, Extractor]
    groups: tuple[Group, ...]
    distances: Mapping[str, tuple[Distance, ...]]
    gaps: tuple[Gap, ...]
    adherence: tuple[Adherence, ...]
    leaks: tuple[Leak, ...]
    windows: tuple[Bounded, ...]
    prompts: tuple[Prompt, ...]
    model: str = ""
    """Registry uri, or whatever else was measured."""
    teacher: str = ""
    when: str = ""
    """ISO 8601 with the zone; empty where nobody noted it."""

    @property
    def name(self) -> str:
        """The model's registered name, or its source."""
        return registered[1] if (registered := re.fullmatch(r"models:/([^/@]+)/(\d+)", self.model)) else self.model

    @property
    def version(self) -> str:
        """Of the registered model; empty where it is not registered."""
        return registered[2] if (registered := re.fullmatch(r"models:/([^/@]+)/(\d+)", self.model)) else ""

    def number(self, name: str) -> Number | None:
        """Return a metric with its interval; None where the evaluation does not speak of it."""
        if name not in self.numbers:
            return None
        low, high = (self.numbers.get(f"{name}_{end}") for end in ("low", "high"))
        return Number(value=self.numbers[name], low=low, high=high)

    def names(self) -> list[str]:
        """Return the metrics in their order, without the ends of intervals."""
        ends = {f"{name}_{end}" for name in self.numbers for end in ("low", "high")}
        return [name for name in self.numbers if name not in ends]


def now() -> str:
    """Return this moment as documents have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def parse(told: Mapping[str, Any]) -> Document:
    """Return a document from JSON's values.

    Raises:
        ValueError: they are no evaluation, or one of another schema.
    """
    if told.get("schema") != SCHEMA:
        raise ValueError(f"an evaluation of schema {told.get('schema')!r} cannot be drawn, only of schema {SCHEMA}")
    try:
        return TypeAdapter(Document).validate_python(told)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"this is no evaluation: {place}: {first['msg']}") from error


def read(folder: Path) -> Document:
    """Return the document of a folder.

    Raises:
        ValueError: the folder has none, or it cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give the id of a run of jobs.evaluate, or a folder with {FILE} in it")
    try:
        return parse(json.loads(path.read_text()))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
