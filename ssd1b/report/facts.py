"""What was asked under which conditions, who measured, and where the student comes from: terms and what they are."""

from dataclasses import dataclass, fields

from ssd1b.evaluation.extractor import Extractor
from ssd1b.evaluation.seen import Conditions
from ssd1b.models.lineage import Lineage
from ssd1b.report import words
from ssd1b.report.document import Document


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One term."""

    term: str
    says: str
    code: bool = False
    """Whether it is a name or a hash, to be read letter by letter."""


def conditions(document: Document) -> list[Fact]:
    """Return under which conditions the student was drawn, and whether the teacher's were the same."""
    held = document.conditions.get("student")
    if held is None:
        return [Fact(term="Conditions", says="The evaluation does not say how the student was measured.")]
    first, last = held.seeds
    kinds = [f"{group.prompts:,} {group.name}" for group in document.groups if group.by == "novelty"]
    probes = sum(bool(prompt.probe) for prompt in document.prompts)
    parts = [*kinds, *([f"{probes:,} with a probe's words"] if probes else [])]
    return [
        Fact(term="Prompts", says=f"{held.prompts:,}" + (f": {words.listed(parts)}" if parts else "")),
        Fact(term="Prompts and seeds, SHA-256", says=held.prompts_sha256, code=True),
        Fact(term="Seeds", says=f"{first}, one for all" if first == last else f"{first} to {last}"),
        Fact(term="Sampler", says=held.sampler, code=True),
        Fact(term="Steps", says=f"{held.steps:,}"),
        Fact(term="Guidance", says=f"{held.guidance:g}"),
        Fact(term="Negative prompt", says="the model's unconditional prompt" if held.negative is None
             else held.negative or "empty"),
        Fact(term="Pictures", says=f"{held.side_px:,} x {held.side_px:,} pixels"),
        Fact(term="Teacher", says=alike(held, document.conditions.get("teacher"))),
    ]  # fmt: skip


def alike(student: Conditions, teacher: Conditions | None) -> str:
    """Say whether the teacher was measured under the same conditions, and else what differs."""
    if teacher is None:
        return "The evaluation does not say how it was measured."
    differing = [
        f"{field.name} {getattr(teacher, field.name)}"
        for field in fields(Conditions)
        if getattr(teacher, field.name) != getattr(student, field.name)
    ]
    return f"differs: {words.listed(differing)}" if differing else "measured under the same conditions"


@dataclass(frozen=True, kw_only=True)
class Measurer:
    """One extractor in its role."""

    role: str
    extractor: Extractor


def measurers(document: Document) -> list[Measurer]:
    """Return who measured what."""
    return [Measurer(role=role, extractor=each) for role, each in document.extractors.items()]


def story(lineage: Lineage) -> list[Fact]:
    """Return where a student comes from, its stages left out."""
    share = words.percent(lineage.parameters / lineage.base_parameters)
    return [
        Fact(term="Base", says=lineage.base, code=True),
        Fact(term="Parameters", says=f"{lineage.parameters:,}, {share} of the base's {lineage.base_parameters:,}"),
        Fact(term="What stays was chosen", says=lineage.chosen),
        Fact(term="Transformer blocks", says=lineage.anatomy, code=True),
        Fact(term="Removed", says=f"{len(lineage.removed):,} places of the base" if lineage.removed else "nothing"),
        Fact(term="Learned", says=lineage.how if lineage.trained else "not trained yet"),
        Fact(term="Data", says=lineage.data or "not recorded"),
        Fact(term="Licence", says=lineage.licence),
        Fact(term="Commit", says=lineage.commit or "not recorded", code=lineage.commit is not None),
        Fact(term="Made with", says=", ".join(f"{name} {of}" for name, of in lineage.versions.items())
             or "not recorded"),
    ]  # fmt: skip
