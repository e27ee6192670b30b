"""Progressive distillation as one elastic Ray Train run: all stages, any number of workers, one MLflow run."""

import hashlib
import json
import os
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from ssd1b import tracking
from ssd1b.corpus.latents import check_same_vae, folder_of
from ssd1b.elastic.feed import DATASET, Attempt, Delivery, attempts
from ssd1b.elastic.rows import Latents
from ssd1b.elastic.sizing import choose
from ssd1b.family.keep import read_keep_map
from ssd1b.home import home, tracking_uri
from ssd1b.models.files import resolve
from ssd1b.recipes.distill import Distillation
from ssd1b.session import connect
from ssd1b.training import checkpoint, journal, stages
from ssd1b.training.follow import Follower, handler
from ssd1b.training.loop import Task
from ssd1b.training.report import stage_folder
from ssd1b.training.worker import work

RAY_TRAIN = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
"""How soon Ray Train notices a dead worker, and how long it waits for new ones; the environment may say otherwise."""


def distill(config: Distillation) -> dict[str, Any]:
    """Run or resume a distillation, register its student as candidate, and return the figures.

    Raises:
        ValueError: the recipe cannot be followed, there are no latents, or the run's name belongs to another run.
        OSError: the disk is full.
    """
    stages.check(config.stages)
    latents = open_latents(config)
    root = home() / "distill" / config.run
    notes = Notes(root)
    slices = slices_of(config, notes)
    order = latents.order(global_batch=config.global_batch, slices=slices, seed=config.seed)
    root.mkdir(parents=True, exist_ok=True)
    claim(root, identity(config, latents))
    notes.set("slices", str(slices))
    (root / journal.FAILURE).unlink(missing_ok=True)
    total = stages.total_steps(config.stages)
    launched_s = time.time()
    with tracking.run("distill", config.run, resume=notes.get("run_id"), tags={"kind": "distill"}) as tracked:
        if not notes.get("run_id"):
            tracked.params(replace(config, slices=slices))
            tracked.text(json.dumps(asdict(config), indent=1), "recipe.json")
            notes.set("run_id", tracked.run_id)
        with Follower(root, handler(tracked, total)):
            if done(root) < total:
                train(Task(config=config, root=root, order=order, launched_s=launched_s), latents)
        if message := journal.failure(root):
            raise ValueError(f"distillation {config.run} cannot go on: {message}")
        figures = summary(config, root, journal.audit(root, order, latents, total), launched_s)
        tracked.metrics({name: value for name, value in figures.items() if isinstance(value, int | float)}, total)
        if not notes.get("version"):
            notes.set("version", register(config, root, tracked.run_id, figures))
    return {"run": config.run, "mlflow_run": tracked.run_id, **figures,
            "registered": f"models:/{config.registered_name}/{notes.get('version')}"}  # fmt: skip


def open_latents(config: Distillation) -> Latents:
    """Return the rows that a recipe trains on, of one corpus or several.

    Raises:
        ValueError: one of them has no rows, or is named twice; two share a sample, or are of unlike VAEs.
    """
    weights = {config.latents: config.weight, **{corpus.latents: corpus.weight for corpus in config.mixed_in}}
    if len(weights) < 1 + len(config.mixed_in):
        raise ValueError(f"latents named twice among {config.latents!r} and mixed_in: give each one weight")
    if config.mixed_in:
        check_same_vae(list(weights))
    return Latents.mix([(Latents.open(folder_of(name)), weight) for name, weight in weights.items()])


def slices_of(config: Distillation, notes: "Notes") -> int:
    """Return the slices of a step: the recipe's, or chosen. They are part of the order, so a run keeps its first.

    Raises:
        ValueError: they are to be chosen, and the most workers are more than the rows of a global batch.
    """
    if config.slices is not None:
        return config.slices
    begun_with = notes.get("slices")
    return (
        int(begun_with) if begun_with else choose(config.global_batch, config.num_workers, config.rows_per_slice).slices
    )


def resume_step(root: Path) -> int:
    """Return the step of the newest checkpoint, or 0."""
    newest = checkpoint.latest(root)
    return checkpoint.step_of(newest) if newest else 0


def train(task: Task, latents: Latents) -> None:
    """Run the loop under Ray Train until it ends, through any number of lost workers."""
    config = task.config
    for name, value in RAY_TRAIN.items():
        os.environ.setdefault(name, value)
    connect(local_cpus=int(config.num_workers[1] * config.cpus_per_worker) + 2)
    total = stages.total_steps(config.stages)
    # Ray Train resumes from its own notes where a run of the same name left some; ours are the only ones that count.
    trainer = TorchTrainer(
        work,
        train_loop_config={"task": task},
        scaling_config=ScalingConfig(
            num_workers=config.num_workers,
            use_gpu=config.gpus_per_worker > 0,
            resources_per_worker={"CPU": config.cpus_per_worker}
            | ({"GPU": config.gpus_per_worker} if config.gpus_per_worker else {}),
            elastic_resize_monitor_interval_s=config.resize_interval_s,
        ),
        run_config=RunConfig(
            name=f"{config.run}-{int(task.launched_s)}",
            storage_path=str(task.root / "ray"),
            failure_config=FailureConfig(max_failures=-1),
            worker_runtime_env={"env_vars": environment(config)},
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
        datasets={DATASET: ray.data.range(1)},  # only names the split; the delivery makes the rows
        dataset_config=Delivery(
            root=task.root,
            steps=total,
            order=task.order,
            latents=latents,
            task_cpus=config.read_cpus,
            resume_step=partial(resume_step, task.root),
        ),
    )
    trainer.fit()


def environment(config: Distillation) -> dict[str, str]:
    """Return what workers must know that a cluster started earlier does not tell them."""
    return {
        "SSD1B_HOME": str(home()),
        "MLFLOW_TRACKING_URI": tracking_uri(),
        "OMP_NUM_THREADS": str(config.threads_per_worker),
    }


def identity(config: Distillation, latents: Latents) -> dict[str, str]:
    """Return what must not change while a run is resumed, by what to call it."""
    recipe = {**asdict(config), **dict.fromkeys(MAY_CHANGE)}
    del recipe["rows_per_slice"]  # the slices are kept as the run began with them
    if not config.mixed_in:
        del recipe["mixed_in"], recipe["weight"]  # recipes did not always have them: the run is the same without
    same: dict[str, Any] = {"recipe": recipe, "latents": latents.fingerprint()}
    same |= {f"teacher {stage.teacher}": weights_of(stage.teacher) for stage in config.stages}
    same |= {f"base {config.base}": weights_of(config.base)}
    if config.student.endswith(".json"):
        same |= {f"keep map {config.student}": asdict(read_keep_map(Path(config.student)))}
    return {name: hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16] for name, value in same.items()}


MAY_CHANGE = (
    "num_workers", "cpus_per_worker", "gpus_per_worker", "threads_per_worker", "read_cpus", "resize_interval_s",
    "checkpoint_steps", "keep_checkpoints", "log_steps", "prompts", "picture_steps", "picture_guidance",
)  # fmt: skip
"""Fields that change neither the order nor the mathematics of a run."""


def weights_of(source: str) -> str:
    """Return a digest of a source's file, or of its UNet where it lies in a folder; of a hub id its name.

    Raises:
        ValueError: no such source.
    """
    where, delta = resolve(source)
    path = Path(where)
    files = [path] if path.is_file() else sorted((path / "unet").glob("*.safetensors"))
    files += [delta] if delta else []
    return "-".join([where if not files else "", *(checkpoint.sha256(file) for file in files)])


def claim(root: Path, identity: dict[str, str]) -> None:
    """Make the folder this run's, or check that it is.

    Raises:
        ValueError: it belongs to a run of another recipe, other latents or other teachers.
    """
    path = root / "identity.json"
    if not path.exists():
        path.write_text(json.dumps(identity, indent=1))
        return
    before = json.loads(path.read_text())
    if other := sorted(name for name in {*before, *identity} if before.get(name) != identity.get(name)):
        raise ValueError(
            f"run {root.name!r} was started with another {', '.join(other)}: "
            f"give this one another name (--set run=...), or remove {root} to begin anew"
        )


class Notes:
    """The job's own memory of a run: the MLflow run, and the version once it is registered."""

    def __init__(self, root: Path) -> None:
        self.path = root / "job.json"
        self.values: dict[str, str] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def get(self, name: str) -> str | None:
        return self.values.get(name)

    def set(self, name: str, value: str) -> None:
        self.values[name] = value
        aside = self.path.with_suffix(".tmp")
        aside.write_text(json.dumps(self.values))
        aside.rename(self.path)


def done(root: Path) -> int:
    """Return the step of the newest checkpoint, or 0."""
    newest = checkpoint.latest(root)
    return checkpoint.step_of(newest) if newest else 0


def summary(config: Distillation, root: Path, audit: journal.Audit, launched_s: float) -> dict[str, Any]:
    """Return the figures of a finished run."""
    events = journal.events(root)
    steps = journal.surviving_steps(events)
    ends = {event["stage"]: event for event in events if event["kind"] == "stage"}
    per_stage: dict[str, Any] = {}
    for stage in config.stages:
        metrics = [steps[step]["metrics"] for step in sorted(steps) if steps[step]["stage"] == stage.name]
        end = ends[stage.name]
        per_stage[stage.name] = {
            "teacher": stage.teacher,
            "steps": stage.steps,
            "first_loss": round(metrics[0]["loss"], 4),
            "last_loss": round(metrics[-1]["loss"], 4),
            "step_s": round(sorted(each["step_s"] for each in metrics)[len(metrics) // 2], 3),
            **{name: end[name] for name in ("teacher_parameters", "student_parameters")},
            **{name: round(end[name], 4) for name in ("teacher_forward_s", "student_forward_s")},
        }
    mine: list[Attempt] = [start for start in attempts(root) if start.time_s >= launched_s]
    last = per_stage[config.stages[-1].name]
    return {
        "stages": per_stage,
        "teacher_parameters": last["teacher_parameters"],
        "student_parameters": last["student_parameters"],
        "forward_speedup": round(last["teacher_forward_s"] / last["student_forward_s"], 2),
        "restarts": max(0, len(mine) - 1),
        "world_sizes": sorted({start.world_size for start in attempts(root)}),
        **asdict(audit),
    }


def register(config: Distillation, root: Path, run_id: str, figures: dict[str, Any]) -> str:
    """Register the last stage's pipeline as candidate and return its version."""
    tags = {
        "kind": "student",
        "run": config.run,
        "teacher": config.stages[-1].teacher,
        "parameters": str(figures["student_parameters"]),
    }
    if commit := os.environ.get("SSD1B_COMMIT"):
        tags["commit"] = commit
    folder = stage_folder(root, config.stages[-1].name)
    return tracking.register(config.registered_name, folder, run_id=run_id, alias="candidate", tags=tags)
