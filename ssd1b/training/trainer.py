"""Progressive distillation as one elastic Ray Train run: all stages, any number of workers, one MLflow run."""

import hashlib
import json
import os
import time
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from ssd1b.command import show
from ssd1b.corpus.latents import check_same_vae, folder_of
from ssd1b.elastic.feed import DATASET, Attempt, Delivery, attempts
from ssd1b.elastic.rows import Latents
from ssd1b.elastic.sizing import choose
from ssd1b.family.keep import read_keep_map
from ssd1b.home import home, tracking_uri
from ssd1b.models.files import resolve
from ssd1b.recipes.distill import Distillation
from ssd1b.session import connect
from ssd1b.tracking.store import UnansweredError
from ssd1b.training import checkpoint, journal, notice, resize, stages
from ssd1b.training.follow import Follower, teller
from ssd1b.training.ledger import Ledger
from ssd1b.training.newest import newest_step
from ssd1b.training.notes import Notes
from ssd1b.training.report import stage_folder
from ssd1b.training.task import Task
from ssd1b.training.worker import work


def distill(config: Distillation) -> dict[str, Any]:
    """Run or resume a distillation, register its student as candidate, and return the figures.

    Raises:
        ValueError: the recipe cannot be followed, there are no latents, or the run's name belongs to another run.
        OSError: the disk is full.
    """
    stages.check(config.stages)
    for name in config.spot_notices:
        notice.source(name)
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
    ledger = Ledger(config, notes)
    run_id = ledger.begin(slices)
    status = "FAILED"
    try:
        with Follower(root, teller(total), "told.json"), Follower(root, ledger.handle, "followed.json") as sent:
            if newest_step(root) < total:
                train(Task(config=config, root=root, order=order, launched_s=launched_s), latents)
        if message := journal.failure(root):
            raise ValueError(f"distillation {config.run} cannot go on: {message}")
        figures = summary(config, root, journal.audit(root, order, latents, total), launched_s)
        version = keep(config, root, ledger, figures, sent)
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        close(ledger, status)
    return {"run": config.run, "mlflow_run": run_id, **figures,
            "registered": f"models:/{config.registered_name}/{version}"}  # fmt: skip


def keep(config: Distillation, root: Path, ledger: Ledger, figures: dict[str, Any], sent: Follower) -> str:
    """Put what a whole run has made into MLflow and return the student's version.

    Raises:
        UnansweredError: MLflow does not answer; the message says what to do.
    """
    folder = stage_folder(root, config.stages[-1].name)
    tags = {
        "kind": "student",
        "run": config.run,
        "teacher": config.stages[-1].teacher,
        "parameters": str(figures["student_parameters"]),
    }
    if commit := os.environ.get("SSD1B_COMMIT"):
        tags["commit"] = commit
    try:
        if sent.unanswered:
            raise UnansweredError(f"MLflow at {tracking_uri()} does not answer")
        ledger.figures(figures, stages.total_steps(config.stages))
        return ledger.register(folder, tags)
    except UnansweredError as error:
        raise UnansweredError(
            f"the student is trained to the end and lies in {folder}, but {error}: once it does, run the same command "
            f"again; it sends what is kept and registers the student, and trains nothing again"
        ) from error


def close(ledger: Ledger, status: str) -> None:
    """End the run in MLflow, if it answers; the next job of this name would open it again anyway."""
    try:
        ledger.end(status)
    except UnansweredError as error:
        show(f"{error}: the run is not marked {status} there")


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


def slices_of(config: Distillation, notes: Notes) -> int:
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


def train(task: Task, latents: Latents) -> None:
    """Run the loop under Ray Train until it ends, through any number of lost workers."""
    config = task.config
    connect(local_cpus=int(config.num_workers[1] * config.cpus_per_worker) + 2)
    trainer(task, latents).fit()


def trainer(task: Task, latents: Latents) -> TorchTrainer:
    """Return what runs the loop once, from the newest checkpoint to its end."""
    config = task.config
    # Ray Train resumes from its own notes where a run of the same name left some; ours are the only ones that count.
    return resize.trainer(
        task.root,
        ScalingConfig(
            num_workers=config.num_workers,
            use_gpu=config.gpus_per_worker > 0,
            resources_per_worker={"CPU": config.cpus_per_worker}
            | ({"GPU": config.gpus_per_worker} if config.gpus_per_worker else {}),
            elastic_resize_monitor_interval_s=config.resize_interval_s,
        ),
        train_loop_per_worker=work,
        train_loop_config={"task": task},
        run_config=RunConfig(
            name=f"{config.run}-{int(1000 * time.time())}",
            storage_path=str(task.root / "ray"),
            failure_config=FailureConfig(max_failures=-1),
            worker_runtime_env={"env_vars": environment(config)},
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
        datasets={DATASET: ray.data.range(1)},  # only names the split; the delivery makes the rows
        dataset_config=Delivery(
            root=task.root,
            steps=stages.total_steps(config.stages),
            order=task.order,
            latents=latents,
            task_cpus=config.read_cpus,
            resume_step=partial(newest_step, task.root),
        ),
    )


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
    for name in ("rows_per_slice", *FREE):  # the slices are kept as the run began with them
        del recipe[name]
    if not config.mixed_in:
        del recipe["mixed_in"], recipe["weight"]  # recipes did not always have them: the run is the same without
    if config.validate_rows:
        recipe["checkpoint_steps"] = config.checkpoint_steps  # a stage's result is one of its checkpoints
    defaults = {field.name: field.default for field in fields(config)}
    for name in ADDED:
        if recipe[name] == defaults[name]:
            del recipe[name]
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
FREE = ("activation_checkpointing", "compiled", "teacher_device", "spot_notices")
"""More of them, which recipes did not always have."""
ADDED = ("features", "normalise", "from_scratch", "noise_offset", "ema_decay", "validate_rows", "optimizer",
         "gradients")  # fmt: skip
"""Fields that recipes did not always have: a run whose recipe leaves them alone is the run that it was before."""


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
