"""Lineage: where a student's weights come from, as a document beside them, and the model card that tells it.

`lineage.json` is for programs, `README.md` for people; the second is written from the first alone, so that it can be
written anew when something is added, such as an evaluation.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ssd1b.family.keep import KeepMap

FILE, CARD = "lineage.json", "README.md"
LICENCE = re.compile(r"^license: *(\S+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One stage of distillation."""

    stage: str
    teacher: str
    """Its source."""
    carved: tuple[str, ...]
    """Parts that went when the stage began."""
    steps: int
    rows_per_step: int
    lr: float
    weights: Mapping[str, float | None]
    """Of the loss terms."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured of the finished model."""

    against: str
    """Source of the model it was compared with."""
    how: str
    """Prompts, steps, sampler, seed."""
    numbers: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """The whole story of one student."""

    name: str
    base: str
    """Source of the model it was carved from."""
    base_parameters: int
    parameters: int
    """Of the UNet."""
    anatomy: str
    """Transformer blocks of each attention, see ssd1b.family.measure."""
    chosen: str
    """How it was decided what stays."""
    removed: Mapping[str, str]
    """Place in the base -> what went."""
    keep_map: KeepMap
    """In the base's numbering."""
    licence: str
    size_px: int
    """Side of the pictures it was made for."""
    trained: tuple[Trained, ...] = ()
    how: str = "distilled layer by layer"
    """How it learned, in words that follow "It was"."""
    data: str = ""
    """What it was trained on."""
    limits: tuple[str, ...] = ()
    """What is known to fall short."""
    commit: str | None = None
    """Of the code that made it."""
    versions: Mapping[str, str] = field(default_factory=dict)
    evaluation: Evaluation | None = None


def write(lineage: Lineage, folder: Path) -> None:
    """Put lineage.json and README.md into a model folder."""
    (folder / FILE).write_text(json.dumps(asdict(lineage), indent=1))
    (folder / CARD).write_text(card(lineage))


def read(folder: Path) -> Lineage | None:
    """Return the lineage of a model folder, None where it has none.

    Raises:
        ValueError: its lineage.json cannot be read.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return TypeAdapter(Lineage).validate_json(path.read_text())
    except ValidationError as error:
        raise ValueError(f"{path} is no lineage: {error.errors()[0]['msg']}; remove it to go on without") from error


def licence_of(folder: Path) -> str:
    """Return the licence that a model folder's card names; "other" where none does."""
    path = folder / CARD
    match = LICENCE.search(path.read_text()) if path.exists() else None
    return match[1] if match else "other"


def card(lineage: Lineage) -> str:
    """Return the model card, Markdown with the hub's metadata on top."""
    sections = [front_matter(lineage), story(lineage), training(lineage), measured(lineage), limits(lineage)]
    return "\n".join(sections)


def front_matter(lineage: Lineage) -> str:
    on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", lineage.base) is not None
    base = [f"base_model: {lineage.base}"] if on_hub else []
    lines = [f"license: {lineage.licence}", "library_name: diffusers", "pipeline_tag: text-to-image", *base,
             "tags: [text-to-image, distillation]"]  # fmt: skip
    return "\n".join(["---", *lines, "---", ""])


def story(lineage: Lineage) -> str:
    share = lineage.parameters / lineage.base_parameters
    named = lineage.licence != "other"
    licence = f"{lineage.licence}, as the base's card says" if named else "the base names none; ask whoever made it"
    removed = [f"- `{place}`: {what}" for place, what in lineage.removed.items()] or ["- nothing"]
    return "\n".join([
        f"# {lineage.name}", "",
        f"A text-to-image model in diffusers layout, for pictures of {lineage.size_px} x {lineage.size_px} pixels. Its "
        f"UNet has {lineage.parameters:,} parameters, {share:.1%} of the {lineage.base_parameters:,} of "
        f"`{lineage.base}`, from which it was carved; text towers, VAE and scheduler are that model's.", "",
        "## Lineage", "",
        f"- **Base**: `{lineage.base}`",
        f"- **What stays was chosen**: {lineage.chosen}",
        f"- **Transformer blocks of each attention**: {lineage.anatomy}",
        f"- **Licence**: {licence}",
        f"- **Commit**: {lineage.commit or 'unknown'}",
        *([f"- **Made with**: {', '.join(f'{name} {v}' for name, v in lineage.versions.items())}"]
          if lineage.versions else []),
        "", f"Removed of `{lineage.base}`, in its numbering (the whole keep map stands in `{FILE}`):", "", *removed, "",
    ])  # fmt: skip


def training(lineage: Lineage) -> str:
    if not lineage.trained:
        return "\n".join([
            "## Training", "",
            "None yet: these are the base's weights without the blocks that were taken out. The pictures are worse "
            "than the base's until the model is distilled.", "",
        ])  # fmt: skip
    rows = [
        f"| {each.stage} | `{each.teacher}` | {', '.join(each.carved) or 'nothing'} | {each.steps:,} | "
        f"{each.rows_per_step} | {each.lr:g} | {weights(each.weights)} |"
        for each in lineage.trained
    ]
    return "\n".join([
        "## Training", "", f"It was {lineage.how}, on {lineage.data}.", "",
        "| stage | teacher | carved | steps | rows a step | learning rate | loss weights |",
        "| --- | --- | --- | --- | --- | --- | --- |", *rows, "",
    ])  # fmt: skip


def weights(of: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in of.items() if value is not None)


def measured(lineage: Lineage) -> str:
    found = lineage.evaluation
    if found is None:
        return "\n".join(["## Evaluation", "", "Not evaluated yet.", ""])
    ends = {f"{name}_{end}" for name in found.numbers for end in ("low", "high")} & found.numbers.keys()
    rows = [
        f"| {name} | {value(found, name)} | {interval(found, name)} |" for name in found.numbers if name not in ends
    ]
    head = ["| measure | value | 95 % |", "| --- | --- | --- |"]
    return "\n".join(["## Evaluation", "", f"Against `{found.against}`: {found.how}.", "", *head, *rows, ""])


def value(found: Evaluation, name: str) -> str:
    """Return a number as people read it."""
    number = found.numbers.get(name)
    return "not measured" if number is None else f"{number:,.5g}"


def interval(found: Evaluation, name: str) -> str:
    """Return the interval of a measure; numbers NAME_low and NAME_high are its ends."""
    low, high = (found.numbers.get(f"{name}_{end}") for end in ("low", "high"))
    return "" if low is None or high is None else f"{low:,.3g} to {high:,.3g}"


def limits(lineage: Lineage) -> str:
    known = [f"- {each}" for each in lineage.limits]
    return "\n".join([
        "## Limits and bias", "",
        "- A student knows nothing that its teachers do not, and loses some of it; rare concepts go first.",
        f"- It has the biases of `{lineage.base}`, of its teachers and of their data, and no step here removes any. "
        "Who and what is drawn where a prompt leaves it open was not measured.",
        "- Nothing here filters prompts or pictures. Whoever serves it has to.",
        "- It is no source of facts about people, places or events.", *known, "",
    ])  # fmt: skip
