"""jobs.carve: a model's UNet cut down to a member of the family or to a budget of parameters, kept as a whole model."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from ssd1b.command import show
from ssd1b.family.carve import carve, declared, keep_map, parameters
from ssd1b.family.keep import KeepMap, everything
from ssd1b.family.measure import anatomy, native_size, removed
from ssd1b.family.table import FAMILY
from ssd1b.home import home
from ssd1b.models.files import load_pipeline, resolve, save_folder
from ssd1b.models.lineage import Lineage, licence_of, write
from ssd1b.pruning import choose
from ssd1b.pruning.calibration import asks, of_corpus, of_latents
from ssd1b.pruning.pieces import parameters as piece_parameters
from ssd1b.pruning.pieces import pieces
from ssd1b.pruning.sensitivity import Ask, error, outputs, sensitivities

KEEP_MAP, SENSITIVITY = "keep_map.json", "sensitivity.json"


@dataclass(frozen=True, kw_only=True)
class Carving:
    """One run of jobs.carve: to a declared student, or to a budget."""

    teacher: str
    """A model source (ssd1b.models.files)."""
    student: str | None = None
    """A member of the family, or a keep map's file."""
    params: int | None = None
    """Most parameters of the student's UNet; what stays is chosen by measurement."""
    name: str
    """The student is kept under <home>/carved/<name>."""
    latents: str | None = None
    """Name of the latents to calibrate with; None: the shipped corpus."""
    pictures: int = 32
    """Calibration pictures, and as many again to check the choice on."""
    seed: int = 0
    dtype: torch.dtype = torch.float32
    device: str = "cpu"


def run(config: Carving, download: Callable[[str], Path]) -> dict[str, Any]:
    """Carve, keep the student with its lineage, and return what became of it.

    download(uri) returns the folder of a registry uri.

    Raises:
        ValueError: no such teacher or student, a budget that no student meets, or a name that is taken.
    """
    if (config.student is None) == (config.params is None):
        raise ValueError("give a student (--to ssd-1b) or a budget (--params 0.74e9), one of the two")
    folder = home() / "carved" / config.name
    if folder.exists():
        raise ValueError(f"{folder} exists: give another name (--name), or remove it")
    source = str(download(config.teacher)) if config.teacher.startswith("models:/") else config.teacher
    pipeline = load_pipeline(source, config.dtype)
    teacher = pipeline.unet.to(config.device)
    figures: dict[str, Any] = {}
    if config.student is not None:
        kept, how = keep_map(teacher.config, config.student), f"declared for {config.student}"
    else:
        assert config.params is not None
        check_budget(teacher, config.params)
        examples = of_latents(config.latents, 2 * config.pictures) if config.latents else None
        examples = examples or of_corpus(pipeline, 2 * config.pictures)
        calibration, held_out = (asks(pipeline, examples[start::2], config.seed + start) for start in (0, 1))
        kept, figures["sensitivity"] = chosen(teacher, calibration, config.params)
        figures["maps"] = compared(teacher, kept, held_out, config.params)
        pictures = f"{config.pictures} pictures of {config.latents or 'the shipped corpus'}"
        how = f"by measurement on {pictures}, for at most {config.params:,} parameters"
    student = carve(teacher, kept)
    story = lineage(config, source, teacher, student, kept, how)
    pipeline.unet = student
    save_folder(pipeline, folder)
    (folder / KEEP_MAP).write_text(json.dumps(asdict(kept)))
    if "sensitivity" in figures:
        (folder / SENSITIVITY).write_text(json.dumps(figures.pop("sensitivity"), indent=1))
    write(story, folder)
    show(f"{config.name}: {story.parameters:,} of {story.base_parameters:,} parameters in {folder}")
    return {
        "name": config.name,
        "teacher": config.teacher,
        "folder": str(folder),
        "keep_map": str(folder / KEEP_MAP),
        "teacher_parameters": story.base_parameters,
        "parameters": story.parameters,
        "transformer_blocks": kept.depth,
        "anatomy": story.anatomy,
        "removed": dict(story.removed),
        **figures,
    }


def check_budget(teacher: UNet2DConditionModel, budget: int) -> None:
    """Raise ValueError, before anything is measured, where a budget asks for nothing or for too much."""
    total = parameters(teacher)
    if budget >= total:
        raise ValueError(f"the teacher has {total:,} parameters, no more than --params {budget:,}: give less")
    whole = everything(teacher.config)
    sizes = {piece.name: piece_parameters(teacher, piece) for piece in pieces(whole)}
    choose.choose(whole, choose.Costs(total, sizes, dict.fromkeys(sizes, 1.0)), budget)


def chosen(teacher: UNet2DConditionModel, calibration: Sequence[Ask], budget: int) -> tuple[KeepMap, dict[str, Any]]:
    """Measure every piece and return the map with the least sum of errors within the budget, and the measurements."""
    whole = everything(teacher.config)
    found = pieces(whole)

    def progress(done: int, total: int) -> None:
        if done % 10 == 0 or done == total:
            show(f"measured {done}/{total} pieces")

    errors = sensitivities(teacher, found, calibration, progress)
    sizes = {piece.name: piece_parameters(teacher, piece) for piece in found}
    choice = choose.choose(whole, choose.Costs(parameters(teacher), sizes, errors), budget)
    gone = {piece.name for piece in choice.gone}
    ranked = sorted(errors, key=errors.__getitem__)
    table = {name: {"error": errors[name], "parameters": sizes[name], "removed": name in gone} for name in ranked}
    show(f"least missed: {', '.join(f'{name} {errors[name]:.2g}' for name in ranked[:3])}")
    show(f"most missed: {', '.join(f'{name} {errors[name]:.2g}' for name in reversed(ranked[-3:]))}")
    return choose.keep_map(whole, choice.gone), {"sum": choice.error, "pieces": table}


def compared(teacher: UNet2DConditionModel, kept: KeepMap, asked: Sequence[Ask], budget: int) -> list[dict[str, Any]]:
    """Print and return, for the chosen map and the declared ones within the budget, the error on pictures held out."""
    maps = {"measured": kept}
    for name, config in FAMILY.items():
        if not name.startswith("nano-"):
            try:
                maps[name] = declared(teacher.config, config)
            except ValueError:
                continue  # not a smaller form of this teacher
    whole = outputs(teacher, asked)
    rows = []
    show(f"{'map':14}{'parameters':>15}{'tf blocks':>11}{'error':>9}   before any training, relative to the teacher")
    for name, each in maps.items():
        student = carve(teacher, each)
        if parameters(student) <= budget:
            row = {"map": name, "parameters": parameters(student), "transformer_blocks": each.depth,
                   "error": error(outputs(student, asked), whole)}  # fmt: skip
            rows.append(row)
            show(f"{name:14}{row['parameters']:>15,}{each.depth:>11}{row['error']:>9.4f}")
    return rows


def lineage(
    config: Carving, source: str, teacher: UNet2DConditionModel, student: UNet2DConditionModel, kept: KeepMap, how: str
) -> Lineage:
    """Return the story of a student that was carved and not trained yet."""
    return Lineage(
        name=config.name,
        base=config.teacher,
        base_parameters=parameters(teacher),
        parameters=parameters(student),
        anatomy=anatomy(student.config),
        chosen=how,
        removed=removed(everything(teacher.config), kept),
        keep_map=kept,
        licence=licence_of(Path(resolve(source)[0])),
        size_px=native_size(student.config).height,
        commit=os.environ.get("SSD1B_COMMIT"),
        versions={name: version(name) for name in ("torch", "diffusers")},
    )
