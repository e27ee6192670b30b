"""Describe members of the family, and model files: a table for people, a document for programs."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ssd1b.command import show
from ssd1b.family.carve import declared
from ssd1b.family.keep import everything
from ssd1b.family.measure import Measure, anatomy, measure, removed
from ssd1b.family.table import FAMILY, PUBLISHED, member, teacher_of
from ssd1b.models.detect import detect
from ssd1b.models.files import resolve, shapes_of
from ssd1b.sizes import Size

NAME = max(map(len, FAMILY))
"""Columns of a name."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """One line of the table."""

    name: str
    found: str | None
    """What a file was found to be; None for a member."""
    teacher: str | None
    measure: Measure
    share: float | None
    """Parameters as a share of the teacher's; None without a teacher."""
    anatomy: str
    removed: Mapping[str, str]
    """Against the teacher."""

    def as_json(self) -> dict[str, Any]:
        published = PUBLISHED.get(self.name)
        return {
            **asdict(self.measure),
            "fp16_bytes": self.measure.fp16_bytes,
            "published_parameters": published,
            "found": self.found,
            "teacher": self.teacher,
            "share_of_teacher": self.share,
            "anatomy": self.anatomy,
            "removed": dict(self.removed),
        }


def describe(names: Sequence[str] = (), size: Size | None = None) -> dict[str, Any]:
    """Print a table of the named members and model files (none named: all members) and return it.

    A file or a folder is described by what the names and shapes of its weights say; they are not read.

    Raises:
        ValueError: no such member or file, one that is no UNet, or a size that a UNet cannot be called at.
    """
    names = names or list(FAMILY)
    for name in names:
        subject(name)
    for line in heading():
        show(line)
    described = []
    for name in names:
        described.append(description(name, size))
        show(row(described[-1]))
    show(f"\n{'':{NAME}} transformer blocks of each attention, block by block; -: a layer without attention")
    for each in described:
        for line in story(each):
            show(line)
    return {"members": {each.name: each.as_json() for each in described}}


@dataclass(frozen=True)
class Subject:
    """What is described."""

    name: str
    config: Mapping[str, Any]
    member: str | None
    """The member of the family that it is."""
    found: str | None = None
    """What a file was found to be."""


@cache
def subject(name: str) -> Subject:
    """Return a member of the family, or what a model source on this machine is.

    Raises:
        ValueError: neither.
    """
    path = Path(name)
    # a folder that happens to be called like a misspelt member is no model
    folder = path.is_dir() and ("/" in name or any((path / each).exists() for each in ("model_index.json", "unet")))
    if name in FAMILY or not (name == "nano" or folder or path.is_file() or path.suffix == ".safetensors"):
        return Subject(name, member(name), name)
    where = Path(resolve(name)[0])
    detected = detect(shapes_of(where), where=name)
    kind = detected.member or "a student of its own"
    return Subject(where.name, detected.config, detected.member, f"{kind}, names of {detected.layout}, in {where}")


def description(name: str, size: Size | None = None) -> Description:
    """Describe a member of the family or a model file."""
    what = subject(name)
    config, teacher = what.config, teacher_of(what.member) if what.member else None
    measured, share, gone = measured_subject(name, size), None, {}
    if teacher is not None:
        share = measured.parameters / measured_subject(teacher, size).parameters
        gone = removed(everything(member(teacher)), declared(member(teacher), config))
    return Description(
        name=what.name,
        found=what.found,
        teacher=teacher,
        measure=measured,
        share=share,
        anatomy=anatomy(config),
        removed=gone,
    )


@cache
def measured_subject(name: str, size: Size | None) -> Measure:
    """Measure a member or a file once."""
    return measure(subject(name).config, size)


def heading() -> list[str]:
    head = f"{'':{NAME}} {'parameters':>14} {'of teacher':>11} {'tf blocks':>10} {'resnets':>8} {'TFLOPs':>9}"
    head += f" {'at':>10} {'fp16 MiB':>9}"
    return [head, "-" * len(head)]


def row(each: Description) -> str:
    """Return a member's line of the table, numbers aligned."""
    m = each.measure
    share = f"{each.share:.1%}" if each.share is not None else ""
    return (
        f"{each.name:{NAME}} {m.parameters:>14,} {share:>11} {m.transformer_blocks:>10} {m.resnets:>8} "
        f"{m.tflops:>9.3g} {m.size:>10} {m.fp16_bytes / 2**20:>9,.1f}"
    )


def story(each: Description) -> list[str]:
    """Return a member's anatomy and what was removed, in lines of at most 110 columns."""
    lines = [f"{each.name:{NAME}} {each.anatomy}"]
    if each.found:
        lines.append(f"{'':{NAME}} {each.found}")
    if each.removed:
        gone = "; ".join(f"{place}: {what}" for place, what in each.removed.items())
        lines += textwrap.wrap(
            f"removed of {each.teacher}: {gone}",
            110,
            initial_indent=" " * (NAME + 1),
            subsequent_indent=" " * (NAME + 3),
        )
    return lines
