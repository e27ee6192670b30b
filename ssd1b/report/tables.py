"""The parts of a page that are numbers with bars: groups of prompts, adherence, distances, and every metric."""

from collections.abc import Sequence
from dataclasses import dataclass

from ssd1b.report import words
from ssd1b.report.bars import Bar, Scale
from ssd1b.report.document import Document, Group, Number

SIDES = ("drawing", "teacher", "student")
BY = {"novelty": "What is new about a prompt", "style": "Style", "category": "Category"}


@dataclass(frozen=True, kw_only=True)
class Told:
    """One number of a cell in words."""

    value: str
    interval: str
    """Both ends; empty where there are none."""
    side: str
    """Whose it is."""
    over: int | None
    """Prompts, where they are not as many as the row's."""
    bar: Bar | None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Numbers of one measure with their bars."""

    told: tuple[Told, ...]
    sort: float | None
    """What a row is sorted by."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row."""

    name: str
    prompts: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under headings."""

    title: str
    heads: tuple[str, ...]
    lines: tuple[Line, ...]
    marks: tuple[float | None, ...]
    """For each heading, where on its bars the value lies that things are held against: 0 of a score, 1 of a share."""


def cell(found: dict[str, Number | None], scale: Scale, how: str = "number", prompts: int | None = None) -> Cell:
    """Return numbers by whose they are in one cell, of a row of so many prompts; it is sorted by the last."""
    held = {side: of for side, of in found.items() if of is not None}
    told = tuple(
        Told(
            value=words.HOW[how](of.value), interval=words.ends(of, how), side=side, bar=scale.bar(of),
            over=None if of.count == prompts else of.count,
        )
        for side, of in held.items()
    )  # fmt: skip
    last = list(held.values())[-1].value if held else None
    return Cell(told=told, sort=last)


def every(groups: Sequence[Group], *names: str) -> list[Number]:
    """Return the numbers of those names in all groups that have them."""
    return [group.numbers[name] for group in groups for name in names if name in group.numbers]


def groups(document: Document) -> list[Table]:
    """Return a table for each of novelty, style and category that prompts have."""
    found = []
    for by, title in BY.items():
        of = [group for group in document.groups if group.by == by]
        if not of:
            continue

        score, kept, apart = (
            Scale.of(every(of, *(f"score_{side}" for side in SIDES)), 0),
            Scale.of(every(of, "score_kept"), 1),
            Scale.of(every(of, "distance_ratio"), 0, 1),
        )
        lines = tuple(
            Line(
                name=group.name, prompts=group.prompts,
                cells=(
                    cell({side: group.numbers.get(f"score_{side}") for side in SIDES}, score, prompts=group.prompts),
                    cell({"student": group.numbers.get("score_kept")}, kept, "percent", group.prompts),
                    cell({"student": group.numbers.get("distance_ratio")}, apart, "percent", group.prompts),
                ),
            )
            for group in of
        )  # fmt: skip
        found.append(
            Table(
                title=title, heads=("Score above chance", "Score kept", "Distance to the teacher"), lines=lines,
                marks=(score.at(0), kept.at(1), apart.at(1)),
            )
        )  # fmt: skip
    return found


def adherence(document: Document) -> list[Table]:
    """Return how often each style and each value of an attribute is shown where it is asked for."""
    scale, found = Scale(start=0, end=1), []
    for what in dict.fromkeys(each.what for each in document.adherence):
        of = {each.of: each for each in document.adherence if each.what == what}
        names = dict.fromkeys(name for each in of.values() for name in each.by)
        lines = []
        for name in names:
            counts = [each.by[name].count or 0 for side, each in of.items() if name in each.by and side != "drawing"]
            prompts = max(counts, default=0)
            cells = (
                cell({side: of[side].by.get(name)}, scale, "percent", prompts) for side in SIDES if side in of
            )  # fmt: skip
            lines.append(Line(name=name, prompts=prompts, cells=tuple(cells)))
        heads = tuple(side.capitalize() for side in SIDES if side in of)
        marks = tuple(scale.at(chance) if (chance := of[side].chance) is not None else None for side in SIDES
                      if side in of)  # fmt: skip
        found.append(Table(title=what.capitalize(), heads=heads, lines=tuple(lines), marks=marks))
    return found


@dataclass(frozen=True, kw_only=True)
class Far:
    """One distance between two sets of pictures."""

    name: str
    between: str
    cell: Cell
    pictures: int
    references: int
    extractor: str
    warning: str


BETWEEN = {
    "teacher": "teacher to real pictures",
    "student": "student to real pictures",
    "student to teacher": "student to teacher",
}


def distances(document: Document) -> list[Far]:
    """Return every distance, those of one name beneath one another on one scale."""
    held = [(of, each) for of, found in document.distances.items() for each in found]
    names = list(dict.fromkeys(each.name for _, each in held))
    number = {id(each): Number(value=each.value, low=each.low, high=each.high) for _, each in held}
    scales = {name: Scale.of([number[id(each)] for _, each in held if each.name == name], 0) for name in names}
    return [
        Far(
            name=name, between=BETWEEN.get(of, of),
            cell=cell({"teacher" if of == "teacher" else "student": number[id(each)]}, scales[name]),
            pictures=each.pictures, references=each.references,
            extractor=f"{each.extractor.name}, sha256 {each.extractor.sha256[:12]}", warning=each.warning,
        )
        for name in names
        for of, each in held
        if each.name == name
    ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number as MLflow has it."""

    name: str
    value: str
    interval: str


def metrics(document: Document) -> list[Metric]:
    """Return every number of the evaluation."""
    return [
        Metric(name=name, value=words.number(of.value), interval=words.interval(of))
        for name in document.names()
        if (of := document.number(name)) is not None
    ]
