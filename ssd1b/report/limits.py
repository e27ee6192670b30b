"""Bias and limits, in sentences that are made of measurements and of nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass

from ssd1b.report import words
from ssd1b.report.document import Adherence, Document, Gap, Leak, Number
from ssd1b.report.words import measured, number, percent, signed

WHOSE = {"teacher": "The teacher's pictures", "student": "The student's pictures", "drawing": "The corpus's drawings"}
EVIDENT = 0.05
"""A gap whose p-value is at or above this is told as one that chance may have dealt."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Sentences on one question."""

    title: str
    sentences: tuple[str, ...]


def parts(document: Document, known: Sequence[str] = ()) -> list[Part]:
    """Return what is to be said; known: limits that the model's lineage names."""
    told: list[tuple[str, list[str]]] = [
        ("Whom it serves worse", [gap(each) for each in document.gaps] or [no("category gap")]),
        ("Whether it does what it is asked", [adherence(each) for each in document.adherence] or [no("adherence")]),
        ("Which words leak", [leak(each) for each in by_probe(document.leaks)] or [no("leak of words")]),
        ("Variety", [variety(document)]),
        ("Held out and trained", [novelty(document)]),
        ("Windows of the protocol", windows(document)),
        ("Warnings", warnings(document)),
    ]
    if known:
        told.append(("Known of the model", list(known)))
    return [Part(title=title, sentences=tuple(sentences)) for title, sentences in told]


def no(what: str) -> str:
    return f"No {what} was measured in this evaluation."


def whose(of: str) -> str:
    return WHOSE.get(of, f"The pictures of {of}")


def gap(of: Gap) -> str:
    """Say how far the best category is from the worst, beside what chance deals."""
    if of.p_value is None:
        likely = "How likely chance is to deal such a gap could not be measured"
    elif of.p_value >= EVIDENT:
        likely = f"Chance deals a gap as large with probability {number(of.p_value)}"
        likely += ", so these prompts do not tell it from chance"
    else:
        likely = f"Chance deals a gap as large with probability {number(of.p_value)} only"
    return (
        f"{whose(of.of)} score best for {of.best} and worst for {of.worst}, {measured(of.gap)} apart. {likely}; the "
        f"mean gap by chance is {number(of.by_chance)}."
    )


def adherence(of: Adherence) -> str:
    """Say how often what is asked for is shown, and where least often."""
    said = f"{whose(of.of)} show the {of.what} that is asked for in {measured(of.share, 'percent')}"
    said += f", where answers dealt at random would reach {percent(of.chance)}"
    shares = {name: each.value for name, each in of.by.items() if each.value is not None}
    if len(shares) > 1:
        worst, best = min(shares, key=lambda name: shares[name]), max(shares, key=lambda name: shares[name])
        if shares[worst] < shares[best]:
            said += f"; most often for {best} ({percent(shares[best])}), least for {worst} ({percent(shares[worst])})"
    return f"{said}."


def by_probe(leaks: Sequence[Leak]) -> list[Leak]:
    """Return the leaks of one probe beside one another."""
    order = list(dict.fromkeys(each.probe for each in leaks))
    return sorted(leaks, key=lambda each: order.index(each.probe))


def leak(of: Leak) -> str:
    """Say what a probe's words did to pictures of the same prompts and seeds."""

    def told(how: str, each: Number) -> str:
        return measured(alone(each, of.prompts), how)

    said = (
        f"With the words of the probe \u201c{of.probe}\u201d behind {of.prompts:,} prompts, {lower(whose(of.of))} "
        f"moved by {told('percent', of.distance)} of the way to an unrelated picture, their score for the plain "
        f"prompt changed by {told('signed', of.score)}, the colour of the middle by {told('number', of.middle)} and "
        f"that of the border by {told('number', of.border)}, in levels of 0 to 1."
    )
    if of.pull is None or of.pull.value is None:
        return said
    way = "nearer to" if of.pull.value >= 0 else "further from"
    return f"{said} The middle came {way} the colour asked of the border, by {told('signed', of.pull)}."


def alone(of: Number, said: int) -> Number:
    """Return a number without its count where the sentence has said that."""
    return Number(value=of.value, low=of.low, high=of.high, count=None if of.count == said else of.count)


def lower(text: str) -> str:
    return text[0].lower() + text[1:]


def variety(document: Document) -> str:
    """Say whether the student's pictures of unlike prompts are less unlike than the teacher's."""
    of = document.number("variety_ratio")
    if of is None or of.value is None:
        return no("variety")
    meant = (
        "its pictures resemble one another more than the teacher's do" if of.high is not None and of.high < 1
        else "its pictures differ from one another more than the teacher's do" if of.low is not None and of.low > 1
        else "this does not tell the two models apart"
    )  # fmt: skip
    return (
        f"Pictures of unlike prompts are {measured(of, 'percent')} as unlike in the student as in the teacher: {meant}."
    )


def novelty(document: Document) -> str:
    """Say how scores on what training held out compare with those on what it had."""
    pair = [document.number(f"{half}_score_student") for half in ("train", "heldout")]
    if pair[0] is None or pair[1] is None or pair[0].value is None or pair[1].value is None:
        return "Trained and held-out prompts were not both measured, so nothing is known of how it generalises."
    seen, held = pair[0], pair[1]
    return (
        f"The student scores {measured(seen)} above chance on prompts of trained objects and {measured(held)} on "
        f"prompts that hold something out, {signed(pair[1].value - pair[0].value)}."
    )


def windows(document: Document) -> list[str]:
    """Say of each window of a published protocol whether the number lies in it."""
    if not document.windows:
        return ["The recipe names no published protocol, so no number here can be held against one."]
    found = []
    for each in document.windows:
        bounds = f"the window of {number(each.window.low)} to {number(each.window.high)}"
        where = "outside" if each.value is not None and not each.inside else "inside"
        found.append(
            f"{each.window.name} was not measured, for {bounds}." if each.value is None
            else f"{each.window.name} is {number(each.value)}, {where} {bounds}."
        )  # fmt: skip
    return found


def warnings(document: Document) -> list[str]:
    """Return the distances' warnings, each with the distances it is about."""
    held: dict[tuple[str, str], list[str]] = {}
    for of, found in document.distances.items():
        for each in found:
            if each.warning:
                held.setdefault((each.name, each.warning), []).append(of)
    return [f"{name} ({words.listed(of)}): {warning}." for (name, warning), of in held.items()] or [
        "No number of this evaluation carries a warning."
    ]
