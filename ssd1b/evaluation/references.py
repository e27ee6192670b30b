"""Real pictures as distributions: what a model's pictures should be like as a whole, and what each style looks like."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ssd1b.evaluation.asks import corpus, first, held_out_objects, picture_of
from ssd1b.evaluation.bias import Adherence, Styles, adherence
from ssd1b.evaluation.distances import Distance, Moments, cmmd, frechet, kid
from ssd1b.evaluation.extractor import Features
from ssd1b.evaluation.measure import Sides
from ssd1b.evaluation.seen import Lookers, Seen
from ssd1b.recipes.evaluate import Evaluate

# N pictures


@dataclass(frozen=True, kw_only=True)
class References:
    """Drawings of the corpus, in the styles and subgroups that a recipe names."""

    seen: Seen
    styles: Styles
    adherence: Adherence
    """How often the nearest style is right for drawings of held-out objects: no model can be expected to do better."""


def read(config: Evaluate, lookers: Lookers) -> References | None:
    """Look at the drawings a recipe asks for; None where it asks for none.

    Raises:
        ValueError: the corpus has fewer.
    """
    if not config.references:
        return None
    rows = corpus(config)
    trained = first(config.references, [row for row in rows if row["split"] == "train"], "trained drawings")
    unseen = held_out_objects(rows)
    seen, judged = (
        lookers.look(
            [torch.stack([picture_of(row["image"]) for row in chosen])], [row["captions"][0] for row in chosen]
        )
        for chosen in (trained, unseen)
    )
    styles = Styles.of(seen.spread, [row["style"] for row in trained])
    found = adherence("style", "drawing", [row["style"] for row in unseen], styles.nearest(judged.spread))
    return References(seen=seen, styles=styles, adherence=found)


def distances(sides: Sides, references: References | None, config: Evaluate) -> Mapping[str, tuple[Distance, ...]]:
    """Return how far each model's pictures are from real ones, and the student's from the teacher's.

    Real ones are the drawings; given moments take their place in the Frechet distance.

    Raises:
        ValueError: moments that do not fit the extractor.
    """
    count = len(sides.main)

    def few(features: Features) -> Features:
        return Features(extractor=features.extractor, values_ND=features.values_ND[:count])

    extractor = sides.teacher.spread.extractor
    real = Moments.of(references.seen.spread) if references else None
    if config.moments:
        real = Moments.read(config.moments, extractor, config.moments_pictures)
    found = {}
    for name, made in sides.models.items():
        each = [frechet(Moments.of(few(made.spread)), real)] if real else []
        if references:
            each += [kid(few(made.spread), references.seen.spread, config.seed)]
            each += [cmmd(few(made.embedded), references.seen.embedded)]
        found[name] = tuple(each)
    if not real:
        return found
    student, teacher = (few(side.spread) for side in (sides.student, sides.teacher))
    found["student to teacher"] = (
        frechet(Moments.of(student), Moments.of(teacher)),
        kid(student, teacher, config.seed),
        cmmd(few(sides.student.embedded), few(sides.teacher.embedded)),
    )
    return found


def style_adherence(sides: Sides, references: References | None) -> list[Adherence]:
    """Return how often pictures have the style that their prompts ask for: drawings, teacher, student."""
    if not references:
        return []
    asked = [ask.style for ask in sides.main]
    models = [
        adherence("style", name, asked, references.styles.nearest(made.spread)[: len(asked)])
        for name, made in sides.models.items()
    ]
    return [references.adherence, *models]
