"""What each idea of the distillation is worth: runs that differ in one thing, measured alike.

Every run is an ordinary one of jobs.distill, so it resumes by name, and an ablation that was cut off goes on. Every
checkpoint's student is asked about held-out pictures, at equal noise, beside the teacher: the curve. The last students
also draw: the table.
"""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import UNet2DConditionModel
from torch import Tensor

from ssd1b import tracking
from ssd1b.command import show
from ssd1b.evaluation.compare import compare
from ssd1b.family.carve import carve, keep_map
from ssd1b.family.keep import everything
from ssd1b.home import home
from ssd1b.models.files import load_pipeline, load_unet
from ssd1b.pruning.calibration import asks, of_corpus
from ssd1b.pruning.sensitivity import Ask, error, outputs
from ssd1b.recipes.ablation import VARIANTS, Ablation, Variant, variant
from ssd1b.recipes.distill import Distillation
from ssd1b.training import checkpoint
from ssd1b.training.pupil import Plan
from ssd1b.training.report import stage_folder
from ssd1b.training.stages import carved_before, total_steps
from ssd1b.training.trainer import distill
from ssd1b.trials.ablation_plot import Curve, plot

COLUMNS = ("heldout_error", "train_error", "score_kept", "distance_ratio", "parameters")


def ablate(config: Ablation) -> dict[str, Any]:
    """Run what an ablation describes, print its table, and keep table and plot in MLflow and under the storage root.

    Raises:
        ValueError: a run cannot be followed, or MLflow does not answer.
    """
    judge = Judge(config)
    curves: list[Curve] = []
    rows: dict[Variant, list[dict[str, float]]] = {name: [] for name in config.variants}
    for seed in config.seeds:
        for name in config.variants:
            run = variant(config.distillation, name, seed)
            distill(run)
            curves.append(Curve(VARIANTS[name], seed, judge.curve(run)))
            rows[name].append(judge.last(run))
            show(f"{VARIANTS[name]}, seed {seed}: {told(rows[name][-1])}")
    for line in table(rows):
        show(line)
    folder = home() / "ablation" / config.distillation.run
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / "curves.png"
    plot(curves, picture)
    with tracking.run("ablate", config.distillation.run) as tracked:
        tracked.params(config)
        tracked.artifact(picture)
        tracked.text("\n".join(table(rows)), "table.txt")
    return {
        "steps": total_steps(config.distillation.stages),
        "seeds": config.seeds,
        "picture": str(picture),
        "mlflow_run": tracked.run_id,
        "variants": rows,
        "curves": [{"variant": curve.name, "seed": curve.seed, "points": curve.points} for curve in curves],
    }


class Judge:
    """Measures the students of runs against one teacher, on the same pictures with the same noise."""

    def __init__(self, config: Ablation) -> None:
        self.config = config
        self.teacher = load_unet(config.evaluation.teacher)
        pipeline = load_pipeline(config.evaluation.teacher, unet=self.teacher)
        pictures = of_corpus(pipeline, config.error_pictures, "heldout")
        self.asks: list[Ask] = asks(pipeline, pictures, config.evaluation.seed)
        self.expected: list[Tensor] = outputs(self.teacher, self.asks)

    def curve(self, run: Distillation) -> dict[int, float]:
        """Return by step the held-out error of the student of each checkpoint that a run has kept."""
        root = home() / "distill" / run.run
        steps = [checkpoint.step_of(folder) for folder in sorted(root.glob("step-*")) if ".tmp-" not in folder.name]
        return {step: error(outputs(student_at(run, root, step), self.asks), self.expected) for step in steps}

    def last(self, run: Distillation) -> dict[str, float]:
        """Return what the student of the last stage is like."""
        folder = stage_folder(home() / "distill" / run.run, run.stages[-1].name)
        numbers = compare(self.config.evaluation, str(folder)).numbers
        names = {
            "heldout_error": "heldout_output_error",
            "train_error": "train_output_error",
            "parameters": "parameters_student",
        }
        shown = {name: numbers[names.get(name, name)] for name in COLUMNS}
        return {**shown, **{f"{name}_{end}": numbers[f"{name}_{end}"] for name in ("score_kept", "distance_ratio")
                            for end in ("low", "high")}}  # fmt: skip


def student_at(run: Distillation, root: Path, step: int) -> UNet2DConditionModel:
    """Return the student of a checkpoint, averaged where the run keeps an average."""
    tensors, _ = checkpoint.load(checkpoint.step_folder(root, step))
    base = load_unet(run.base)
    whole = everything(base.config)
    kept = Plan(whole, keep_map(base.config, run.student)).student.only(carved_before(run.stages, step), whole)
    student = carve(base, kept)
    student.load_state_dict(tensors["student"] | tensors.get("ema", {}))
    return student.eval()


def told(row: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {row[name]:,.4g}" for name in COLUMNS)


def table(rows: Mapping[Variant, list[dict[str, float]]]) -> list[str]:
    """Return lines: a variant a line, means over the seeds, and the held-out error over that of the whole."""
    first = next(iter(rows.values()))
    against = statistics.mean(row["heldout_error"] for row in first)
    lines = [f"{'':28s}" + "".join(f"{name:>16s}" for name in (*COLUMNS, "error / first"))]
    for name, runs in rows.items():
        means = {column: statistics.mean(row[column] for row in runs) for column in COLUMNS}
        cells = [f"{mean:>16,.{0 if column == 'parameters' else 4}f}" for column, mean in means.items()]
        lines.append(f"{VARIANTS[name]:28s}" + "".join(cells) + f"{means['heldout_error'] / against:>16.2f}")
    return lines
