"""jobs.benchmark curves: is a run the same run whatever becomes of its workers?

One recipe, one seed: with 1, 2 and 3 workers from end to end, and with up to three of which a worker, a node and the
driver are killed on the way. The samples of every step must be the same to the last one, the losses to within what the
order of float32 sums does to them.
"""

import json
import pickle
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssd1b.command import show
from ssd1b.elastic.feed import attempts
from ssd1b.home import home
from ssd1b.recipes.benchmark import Curves
from ssd1b.recipes.distill import Distillation
from ssd1b.training import checkpoint, journal
from ssd1b.training.stages import total_steps
from ssd1b.trials.bed import EVENTS, RESULT, TOLD, Bed, apart
from ssd1b.trials.local_nodes import NODE_CPUS
from ssd1b.trials.recovery import steps_lost, table

DISTURBED = "disturbed"


def curves(config: Curves) -> dict[str, Any]:
    """Run what a recipe describes, lay its curves over one another, print a table and keep a picture.

    Raises:
        ValueError: no such event, or losses or weights that differ by more than the recipe's tolerance.
        RuntimeError: a run did not come to its end.
    """
    if unknown := [name for name in config.events if name not in EVENTS]:
        raise ValueError(f"no event {unknown[0]!r}: choose from {', '.join(EVENTS)}")
    runs: dict[str, dict[str, Any]] = apart(__name__, config, "")
    first = next(iter(runs))
    losses = {name: run["losses"] for name, run in runs.items()}
    for run in runs.values():
        pairs = zip(run["losses"], losses[first], strict=True)
        run["largest_difference"] = max(abs(ours - theirs) / theirs for ours, theirs in pairs)
    folder = home() / "curves"
    folder.mkdir(parents=True, exist_ok=True)
    plot(losses, folder / "curves.png")
    figures = ("world sizes", "starts", "steps taken again", "samples unlike", "largest_difference", "weights_differ")
    for line in table(
        [{"run": name, **{key: shown(run[key]) for key in figures if key in run}} for name, run in runs.items()]
    ):
        show(line)
    worst = max(max(run["largest_difference"], run["weights_differ"]) for run in runs.values())
    unlike = sum(run["samples unlike"] for run in runs.values())
    if worst > config.tolerance or unlike:
        raise ValueError(
            f"the runs are not one run: losses or weights differ by up to {worst:.2g} of themselves, {unlike} samples "
            f"are in other steps; {config.tolerance:.2g} and 0 are allowed"
        )
    return {"steps": len(losses[first]), "tolerance": config.tolerance, "largest_difference": worst,
            "picture": str(folder / "curves.png"), "runs": runs}  # fmt: skip


def shown(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def main(scratch: Path) -> None:
    """Make the runs of a config that lies in a folder, one after the other, and leave what they were like there."""
    config: Curves = pickle.loads((scratch / TOLD).read_bytes())
    runs: dict[str, dict[str, Any]] = {}
    reference: Path | None = None
    for workers in config.workers:
        bed = Bed(recipe(config, f"{workers}", (workers, workers)), home(), scratch, workers)
        run_to_the_end(bed, ())
        reference = reference or bed.root
        runs[f"{workers} worker{'s' if workers > 1 else ''}"] = told(bed, reference)
    most = max(config.workers)
    bed = Bed(recipe(config, DISTURBED, (1, most)), home(), scratch, most)
    run_to_the_end(bed, config.events)
    assert reference is not None
    runs[f"{', '.join(config.events)} killed"] = told(bed, reference)
    (scratch / RESULT).write_text(json.dumps(runs))


def recipe(config: Curves, name: str, workers: tuple[int, int]) -> Distillation:
    run = f"{config.distillation.run}-{name}"
    return replace(
        config.distillation, run=run, registered_name=run, num_workers=workers, cpus_per_worker=NODE_CPUS,
        threads_per_worker=1, log_steps=1, resize_interval_s=5.0,
    )  # fmt: skip


def run_to_the_end(bed: Bed, events: tuple[str, ...]) -> None:
    """Run a job to its end, with events on the way; a run that was there already is not made again."""
    with bed.running():
        for name in events:
            bed.wait_until_busy()
            known = len(attempts(bed.root))
            bed.wait_for_step(EVENTS[name](bed), known)
            show(f"{bed.recipe.run}: {name}, went on from step {attempts(bed.root)[-1].first_step}")
        bed.end()
    show(f"{bed.recipe.run}: done")


def told(bed: Bed, reference: Path) -> dict[str, Any]:
    """Return what a finished run was like, beside another."""
    steps = total_steps(bed.recipe.stages)
    events = journal.surviving_steps(journal.events(bed.root))
    starts = attempts(bed.root)
    ours, theirs = samples(bed.root, steps), samples(reference, steps)
    return {
        "losses": [events[step]["metrics"]["loss"] for step in sorted(events)],
        "world sizes": " ".join(str(start.world_size) for start in starts),
        "starts": len(starts),
        "steps taken again": sum(steps_lost(bed.root, after) for after in range(1, len(starts))),
        "samples unlike": sum(
            ((here - there) + (there - here)).total() for here, there in zip(ours, theirs, strict=True)
        ),
        "weights_differ": weights_differ(bed.root, reference, steps),
    }


def samples(root: Path, steps: int) -> list[Counter[journal.Pass]]:
    """Return what each step of a run has met."""
    met: list[Counter[journal.Pass]] = [Counter() for _ in range(steps)]
    for step, here in journal.surviving(root, steps, []):
        met[step] += here
    return met


def weights_differ(root: Path, reference: Path, step: int) -> float:
    """Return how far the last students are from one another: the distance, as a share of the reference's length."""
    ours, theirs = (checkpoint.load(checkpoint.step_folder(each, step))[0]["student"] for each in (root, reference))
    apart_2 = sum(float((ours[name].double() - theirs[name].double()).square().sum()) for name in theirs)
    length_2 = sum(float(theirs[name].double().square().sum()) for name in theirs)
    return float(torch.tensor(apart_2 / length_2).sqrt())


def plot(losses: dict[str, list[float]], path: Path) -> None:
    """Draw the curves over one another, and beneath how far each is from the first, where any is."""
    first = next(iter(losses))
    apart_ = {
        name: [abs(ours - theirs) / theirs for ours, theirs in zip(values, losses[first], strict=True)]
        for name, values in losses.items()
    }
    alike = not any(map(any, apart_.values()))
    figure = Figure(figsize=(7.5, 3.6 if alike else 5.5), dpi=150)
    FigureCanvasAgg(figure)
    panels = figure.subplots(1 if alike else 2, 1, sharex=True, squeeze=False, height_ratios=(1,) if alike else (2, 1))
    above = panels[0, 0]
    steps = range(1, len(losses[first]) + 1)
    for number, (name, values) in enumerate(losses.items()):
        width = 5.0 - 1.2 * number  # each is drawn over the last, thinner, so that all can be seen
        above.plot(steps, values, label=name, color=f"C{number}", linewidth=width)
        if not alike:
            panels[1, 0].plot(steps, apart_[name], color=f"C{number}", linewidth=1)
    above.set_yscale("log")
    above.set_ylabel("loss")
    above.legend(frameon=False, loc="lower right")
    if not alike:
        panels[1, 0].set_yscale("log")
        panels[1, 0].set_ylabel(f"difference from {first},\nas a share of the loss")
    panels[-1, 0].set_xlabel("optimizer steps")
    panels[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in panels[:, 0]:
        axes.grid(visible=True, alpha=0.25)
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
