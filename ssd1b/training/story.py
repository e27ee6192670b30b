"""The lineage of a student in training, from the recipe and the run."""

import json
import os
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from ssd1b.family.measure import anatomy, native_size, removed
from ssd1b.home import home
from ssd1b.models.files import resolve
from ssd1b.models.lineage import Lineage, Trained, licence_of, read
from ssd1b.recipes.distill import Distillation
from ssd1b.training.pupil import Pupil


def story(config: Distillation, pupil: Pupil) -> Lineage:
    """Return where the student of a stage that has just ended comes from."""
    teacher_parameters, parameters = pupil.sizes
    return Lineage(
        name=config.registered_name,
        base=config.base,
        base_parameters=teacher_parameters,
        parameters=parameters,
        anatomy=anatomy(pupil.student.config),
        chosen=f"{chosen(config.student)}, carved part by part as the stages say",
        removed=removed(pupil.plan.whole, pupil.kept),
        keep_map=pupil.kept,
        licence=licence_of(Path(resolve(config.base)[0])),
        size_px=native_size(pupil.student.config).height,
        trained=tuple(
            Trained(
                stage=stage.name,
                teacher=stage.teacher,
                carved=stage.carve,
                steps=stage.steps,
                rows_per_step=config.global_batch,
                lr=stage.lr,
                weights=asdict(stage.weights),
            )
            for stage in config.stages[: pupil.index + 1]
        ),
        how=how(config),
        data=data(config),
        commit=os.environ.get("SSD1B_COMMIT"),
        versions={name: version(name) for name in ("torch", "diffusers")},
    )


def chosen(student: str) -> str:
    """Say how it was decided what stays: what jobs.carve noted beside a keep map, or whose blocks these are."""
    told = read(Path(student).parent) if student.endswith(".json") else None
    return told.chosen if told else f"the blocks of {student}"


PLACES = {
    "layers": "layer by layer",
    "blocks": "by the features of whole blocks",
    "self_attention": "by the features of its self-attentions",
}


def how(config: Distillation) -> str:
    """Say how a student learned: from what of its teachers, and which of its weights were kept."""
    compared = any(stage.weights.feature for stage in config.stages)
    asked = compared or any(stage.weights.output for stage in config.stages)
    parts = [f"distilled {PLACES[config.features]}" if compared else "distilled by output alone" if asked
             else "trained without a teacher"]  # fmt: skip
    parts += ["from random weights"] if config.from_scratch else []
    parts += ["each feature relative to the teacher's"] if compared and config.normalise else []
    parts += [f"with noise offset {config.noise_offset:g}"] if config.noise_offset else []
    parts += [f"its weights averaged with decay {config.ema_decay:g}"] if config.ema_decay is not None else []
    parts += [f"the best checkpoint by {config.validate_rows} held-out rows"] if config.validate_rows else []
    return ", ".join(parts)


def data(config: Distillation) -> str:
    """Say what the latents of a run are."""
    summary = home() / "latents" / config.latents / "_summary.json"
    kept = json.loads(summary.read_text())["rows_kept"] if summary.exists() else None
    count = f", {kept:,} pictures with their captions" if kept else ""
    return f"the latents `{config.latents}`{count}, seed {config.seed}, {config.drop_share:.0%} of captions dropped"
