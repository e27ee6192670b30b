"""Measure a student against its teacher: the same prompts, the same seeds, the same sampler, the same extractors."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from ssd1b.command import show
from ssd1b.evaluation import bias, measure, references
from ssd1b.evaluation.asks import Ask, asks_of, picture_of
from ssd1b.evaluation.cost import output_errors, sizes, step_times
from ssd1b.evaluation.drawing import Model, Pictures, draw
from ssd1b.evaluation.eyes import eyes, image_text, taste
from ssd1b.evaluation.measure import Sides
from ssd1b.evaluation.references import References
from ssd1b.evaluation.result import Bounded, Pictured, Result
from ssd1b.evaluation.seen import Conditions, Lookers
from ssd1b.evaluation.sheet import sheet
from ssd1b.recipes.evaluate import Evaluate

BLANK = "#f2f2f2"
"""What the sheet shows where nobody drew a prompt."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What came out."""

    result: Result
    sheet: Image.Image
    """Prompts down; the corpus's own drawing, teacher and student across."""

    @property
    def numbers(self) -> Mapping[str, float]:
        """Metrics by name (see Result)."""
        return self.result.numbers


def compare(config: Evaluate, student_source: str, folder: Path | None = None) -> Comparison:
    """Draw with both models and measure.

    folder gets the pictures, as pictures/MODEL/NUMBER.png, and the corpus's own as pictures/drawing/NUMBER.png; without
    one they are not kept.

    Raises:
        ValueError: a source that is no model, an extractor that cannot be read, or fewer prompts than asked for.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as aside:
            return compare(config, student_source, Path(aside))
    torch.manual_seed(config.seed)
    asks, lookers = asks_of(config), lookers_of(config)
    models = {name: Model.load(source, config.device)
              for name, source in (("teacher", config.teacher), ("student", student_source))}  # fmt: skip
    drawn: dict[str, Pictures] = {}
    for name, model in models.items():
        started = time.monotonic()
        drawn[name] = draw(model, asks, config, folder / "pictures" / name)
        show(f"{name}: {len(asks)} pictures of {config.steps} steps in {time.monotonic() - started:.1f} s")
    drawings = Pictures(folder / "pictures" / "drawing", len(asks))
    for i, ask in enumerate(asks):
        if ask.drawing is not None:
            drawings.keep(i, picture_of(ask.drawing)[None])
    sides = look(lookers, asks, drawn, config)
    costs = {
        **output_errors(models["teacher"].engine.unet, models["student"].engine.unet, config),
        **sizes(models["teacher"], models["student"]),
        **step_times(models["teacher"], models["student"], config),
    }
    result = gather(sides, references.read(config, lookers), lookers, costs, config)
    for warning in dict.fromkeys(each.warning for found in result.distances.values() for each in found if each.warning):
        show(f"warning: {warning}")
    heads = {name: f"{name}\n{model.parameters / 1e6:.2f} M" for name, model in models.items()}
    return Comparison(result=result, sheet=contact_sheet(sides, drawn, heads, config))


def lookers_of(config: Evaluate) -> Lookers:
    """Open every extractor that a recipe names."""
    tastes = {name: taste(name, source, config.device) for name, source in config.preferences.items()}
    return Lookers(image_text(config.scorer, config.device), eyes(config.features, config.device), tastes)


def look(lookers: Lookers, asks: Sequence[Ask], drawn: Mapping[str, Pictures], config: Evaluate) -> Sides:
    """Look at both models' pictures and at the corpus's drawings of the same prompts."""
    main = [ask for ask in asks if not ask.probe]
    known = [(picture_of(ask.drawing), ask.prompt) for ask in main if ask.drawing is not None]
    drawings, prompts = [drawing for drawing, _ in known], [ask.prompt for ask in asks]
    seen = {name: lookers.look(made.batches(config.batch), prompts) for name, made in drawn.items()}
    return Sides(
        asks=asks,
        texts_ME=lookers.scorer.texts([ask.prompt for ask in main]),
        teacher=seen["teacher"],
        student=seen["student"],
        drawing=lookers.look([torch.stack(drawings)], [prompt for _, prompt in known]) if drawings else None,
    )


def gather(
    sides: Sides, drawings: References | None, lookers: Lookers, costs: Mapping[str, float], config: Evaluate
) -> Result:
    """Return everything that is measured of two models' pictures, with what was measured of the networks."""
    far = references.distances(sides, drawings, config)
    numbers = {**measure.numbers(sides), **costs}
    for of, found in far.items():
        numbers |= {f"{each.name.lower().replace('-', '_')}_{of.replace(' ', '_')}": each.value for each in found}
    models = sides.models
    gaps = [bias.category_gap(name, score_N, sides.main, config.seed) for name, score_N in sides.scores.items()]
    return Result(
        numbers=numbers,
        conditions={
            name: Conditions.of(config, sides.asks, made.embedded.extractor, made.spread.extractor)
            for name, made in models.items()
        },
        extractors={
            "scorer": lookers.scorer.extractor, "features": lookers.eyes.extractor,
            **{name: each.extractor for name, each in lookers.tastes.items()},
        },
        groups=tuple(measure.groups(sides)),
        distances=far,
        gaps=tuple(gap for gap in gaps if gap is not None),
        adherence=(
            *references.style_adherence(sides, drawings),
            *(bias.attribute_adherence(name, made, sides.asks, config.attribute) for name, made in models.items()),
        ),
        leaks=tuple(
            leak for name, made in models.items()
            for leak in bias.leaks(name, made, sides.texts_ME, sides.asks, config.attribute)
        ),
        windows=tuple(Bounded(window=window, value=numbers.get(window.name)) for window in config.windows),
        prompts=tuple(pictured(sides)),
    )  # fmt: skip


def pictured(sides: Sides) -> list[Pictured]:
    """Return what became of every prompt."""
    count, (paired_N, _) = len(sides.main), sides.distances["distance"]

    def at(values_N: torch.Tensor, i: int) -> float | None:
        return float(values_N[i]) if i < count else None

    return [
        Pictured(
            prompt=ask.prompt, seed=ask.seed, novelty=ask.novelty, style=ask.style, category=ask.category,
            probe=ask.probe, plain=ask.plain, score_teacher=at(sides.scores["teacher"], i),
            score_student=at(sides.scores["student"], i), distance=at(paired_N, i),
            pictures={
                name: f"pictures/{name}/{i:05d}.png"
                for name in (*(["drawing"] if ask.drawing is not None else []), *sides.models)
            },
        )
        for i, ask in enumerate(sides.asks)
    ]  # fmt: skip


def contact_sheet(
    sides: Sides, drawn: Mapping[str, Pictures], heads: Mapping[str, str], config: Evaluate
) -> Image.Image:
    """Return held-out prompts and then trained ones, each kind taking its share of the rows."""
    kinds = list(dict.fromkeys(ask.novelty for ask in sides.main))
    each = max(config.sheet_prompts // len(kinds), 1)
    shown = [i for kind in kinds for i in [i for i, ask in enumerate(sides.main) if ask.novelty == kind][:each]]
    known = any(ask.drawing for ask in sides.main)
    grid = []
    for i in shown:
        drawing = sides.main[i].drawing
        own = Image.fromarray(picture_of(drawing).numpy()) if drawing else Image.new("RGB", (config.side,) * 2, BLANK)
        grid.append([*([own] if known else []), *(made.read(i) for made in drawn.values())])
    words = [f"{sides.main[i].prompt}\n({sides.main[i].novelty})" for i in shown]
    return sheet(words, [*(["the corpus's drawing"] if known else []), *heads.values()], grid)
