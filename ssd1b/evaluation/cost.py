"""What a student costs beside its teacher, and how far its noise estimates are: measured of the networks themselves."""

import statistics
import time

import torch
from diffusers import UNet2DConditionModel

from ssd1b.evaluation.drawing import Model
from ssd1b.models.files import load_pipeline
from ssd1b.pruning.calibration import asks, of_corpus
from ssd1b.pruning.sensitivity import error, outputs
from ssd1b.recipes.evaluate import Evaluate
from ssd1b.sampling.denoise import Request, advance, start
from ssd1b.sizes import Size

SPLITS = ("heldout", "train")


def output_errors(teacher: UNet2DConditionModel, student: UNet2DConditionModel, config: Evaluate) -> dict[str, float]:
    """Return how far the student's noise estimates are from the teacher's, on noisy latents of the corpus.

    Mean squared difference over the mean square of the teacher's, at timesteps spread evenly over the schedule.
    """
    if not config.error_pictures:
        return {}
    pipeline = load_pipeline(config.teacher, unet=teacher)
    found = {}
    for split in SPLITS:
        asked = asks(pipeline, of_corpus(pipeline, config.error_pictures, split), config.seed)
        found[f"{split}_output_error"] = error(outputs(student, asked), outputs(teacher, asked))
    return found


def sizes(teacher: Model, student: Model) -> dict[str, float]:
    """Return the UNets' parameters, and the student's as a share of the teacher's."""
    return {
        "parameters_teacher": teacher.parameters,
        "parameters_student": student.parameters,
        "parameters_ratio": student.parameters / teacher.parameters,
    }


def step_times(teacher: Model, student: Model, config: Evaluate) -> dict[str, float]:
    """Return milliseconds of a UNet call for both, and the median of teacher / student.

    The two run in turn and each pair gives one ratio, so that a machine busy with other work slows both alike.
    """
    request = Request(
        prompt="", sampler=config.sampler, steps=config.steps, guidance=1.0, size=Size(config.side, config.side)
    )
    times: list[tuple[float, float]] = []
    for _ in range(config.timing_rounds + 1):
        pair = []
        for model in (teacher, student):
            device = model.engine.device
            rows = start(model.prompts, [request] * config.timing_batch, schedule=model.schedule, device=device)
            wait(device)
            started = time.perf_counter()
            advance(model.engine, rows)
            wait(device)
            pair.append(1000 * (time.perf_counter() - started))
        times.append((pair[0], pair[1]))
    measured = times[1:]  # the first call of each also allocates
    return {
        "step_ms_teacher": statistics.median(pair[0] for pair in measured),
        "step_ms_student": statistics.median(pair[1] for pair in measured),
        "step_speedup": statistics.median(pair[0] / pair[1] for pair in measured),
    }


def wait(device: torch.device) -> None:
    """Return once the device has done what it was given: a GPU's calls return before they are done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
