"""What two models' pictures for the same prompts and seeds say about each other: the numbers, whole and by group.

Pure functions of what the extractors saw. Each refuses what was measured by unlike extractors or on unlike prompts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ssd1b.evaluation import metrics
from ssd1b.evaluation.asks import Ask
from ssd1b.evaluation.extractor import refuse_unlike
from ssd1b.evaluation.metrics import Estimate
from ssd1b.evaluation.seen import Seen

# N prompts, probes left out; E width of the space of pictures and texts

GROUPS: Mapping[str, Callable[[Ask], str]] = {
    "novelty": lambda ask: ask.novelty,
    "style": lambda ask: ask.style,
    "category": lambda ask: ask.category,
}
HALVES = ("heldout", "train")


@dataclass(frozen=True, kw_only=True)
class Group:
    """The prompts that share a novelty, a style or a category."""

    by: str
    name: str
    prompts: int
    numbers: Mapping[str, Estimate]
    """score_teacher, score_student, score_kept, distance_ratio; score_drawing where there are drawings."""


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Two models before the same prompts, and the corpus's drawings where there are some."""

    asks: Sequence[Ask]
    """Main prompts first, then probes."""
    texts_ME: Tensor
    """Unit vectors of the main prompts."""
    teacher: Seen
    student: Seen
    drawing: Seen | None
    """Of the main prompts that were drawn, in their order."""

    def __post_init__(self) -> None:
        for one, other in (
            (self.teacher.embedded, self.student.embedded),
            (self.teacher.compared, self.student.compared),
            (self.teacher.spread, self.student.spread),
        ):
            refuse_unlike(one.extractor, other.extractor)

    @property
    def main(self) -> Sequence[Ask]:
        """The prompts without probes."""
        return self.asks[: len(self.texts_ME)]

    @property
    def models(self) -> dict[str, Seen]:
        """Teacher and student by name."""
        return {"teacher": self.teacher, "student": self.student}

    @cached_property
    def drawn(self) -> Tensor:
        """Which of the main prompts the corpus has a drawing of, boolean (N,)."""
        return torch.tensor([ask.drawing is not None for ask in self.main])

    @cached_property
    def scores(self) -> dict[str, Tensor]:
        """Image-text scores above chance by side, each (N,); "drawing" is NaN where nobody drew."""
        count = len(self.main)
        found = {
            name: metrics.above_chance(seen.embedded.values_ND[:count] @ self.texts_ME.T)
            for name, seen in self.models.items()
        }
        if self.drawing is None:
            return found
        drawing_N = torch.full((count,), torch.nan)
        drawing_N[self.drawn] = metrics.above_chance(self.drawing.embedded.values_ND @ self.texts_ME[self.drawn].T)
        return {"drawing": drawing_N, **found}

    @cached_property
    def distances(self) -> dict[str, tuple[Tensor, Tensor]]:
        """How far the two models' pictures of a prompt are apart, and unrelated ones, in features and in pixels."""
        count = len(self.main)

        def of(distance: Callable[[Tensor, Tensor], Tensor], teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
            return distance(teacher, student), metrics.unrelated(distance, teacher, student)

        features = [seen.compared.values_ND[:count] for seen in self.models.values()]
        pixels = [seen.small_NHWC[:count] for seen in self.models.values()]
        return {"distance": of(metrics.feature_distance, *features), "pixels": of(metrics.pixel_distance, *pixels)}

    def where(self, half: str) -> Tensor:
        """Return which main prompts are trained, or hold anything out, boolean (N,)."""
        return torch.tensor([(ask.novelty == "trained") == (half == "train") for ask in self.main])


def numbers(sides: Sides) -> dict[str, float]:
    """Return scores and distances over all prompts, and over those that hold something out and those that do not.

    "score_kept" is the student's score above chance as a share of the teacher's; "distance_ratio" how far the two
    models' pictures of a prompt are apart, as a share of unrelated pictures'; "pixels_ratio" the same in pixels;
    "variety_ratio" how unlike the student's pictures of unlike prompts are, as a share of the teacher's;
    "SCORER_score_MODEL" 100 times the plain cosine, which is the CLIP score where the scorer is a CLIP.
    """
    found: dict[str, float] = {}
    scores, scorer = sides.scores, sides.teacher.embedded.extractor.name
    for half in HALVES:
        if not (where := sides.where(half)).any():
            continue
        for name, score_N in scores.items():
            if len(held := score_N[where & ~score_N.isnan()]):
                found |= metrics.mean(held).named(f"{half}_score_{name}")
        kept = metrics.ratio(scores["student"][where], scores["teacher"][where])
        found |= kept.named(f"{half}_score_kept") | {f"{half}_prompts": float(kept.count)}
    kept = metrics.ratio(scores["student"], scores["teacher"])
    found |= kept.named("score_kept") | {"prompts": float(kept.count)}
    for name, (paired_N, unrelated_N) in sides.distances.items():
        found |= {f"{name}_paired": float(paired_N.mean()), f"{name}_unrelated": float(unrelated_N.mean())}
        found |= metrics.ratio(paired_N, unrelated_N).named(f"{name}_ratio")
    variety = {name: variety_of(seen.compared.values_ND[: len(sides.main)]) for name, seen in sides.models.items()}
    found |= metrics.ratio(variety["student"], variety["teacher"]).named("variety_ratio")
    for name, seen in sides.models.items():
        cosine_N = (seen.embedded.values_ND[: len(sides.main)] * sides.texts_ME).sum(-1)
        found |= metrics.mean(100 * cosine_N).named(f"{scorer}_score_{name}")
        for taste, values_M in seen.tastes.items():
            found |= metrics.mean(values_M[: len(sides.main)]).named(f"{taste}_{name}")
    for taste in sides.teacher.tastes:
        teacher_N, student_N = (seen.tastes[taste][: len(sides.main)] for seen in sides.models.values())
        found |= metrics.mean(student_N - teacher_N).named(f"{taste}_gained")
    return found


def variety_of(features_ND: Tensor) -> Tensor:
    """Return each picture's mean distance to the same model's other pictures, shape (N,)."""
    return metrics.unrelated(metrics.feature_distance, features_ND, features_ND)


def groups(sides: Sides) -> list[Group]:
    """Return the same by novelty, style and category, each with its own interval; a prompt without one is in none."""
    found = []
    paired_N, unrelated_N = sides.distances["distance"]
    for by, name_of in GROUPS.items():
        names = [name_of(ask) for ask in sides.main]
        for name in dict.fromkeys(filter(None, names)):
            where = torch.tensor([each == name for each in names])
            measured = {
                f"score_{side}": metrics.mean(held)
                for side, score_N in sides.scores.items()
                if len(held := score_N[where & ~score_N.isnan()])
            }
            measured["score_kept"] = metrics.ratio(sides.scores["student"][where], sides.scores["teacher"][where])
            measured["distance_ratio"] = metrics.ratio(paired_N[where], unrelated_N[where])
            found.append(Group(by=by, name=name, prompts=int(where.sum()), numbers=measured))
    return found
