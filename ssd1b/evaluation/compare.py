"""Measure a student against its teacher: the same prompts, the same seeds, the same sampler."""

import hashlib
import io
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor

from ssd1b.command import show
from ssd1b.corpus import shipped
from ssd1b.engines.on_torch import TorchEngine
from ssd1b.evaluation import metrics
from ssd1b.evaluation.report import sheet
from ssd1b.evaluation.scorer import Scorer
from ssd1b.models.files import load_pipeline, load_unet, load_vae
from ssd1b.models.local import folder_of
from ssd1b.pruning.calibration import asks, of_corpus
from ssd1b.pruning.sensitivity import error, outputs
from ssd1b.recipes.evaluate import Evaluate
from ssd1b.sampling.decode import Decoder
from ssd1b.sampling.denoise import Request, advance, generate, start
from ssd1b.sampling.prompts import Prompts

# N pictures, H W pixels, C colours, D features of a picture; B rows of an engine call

SPLITS = ("heldout", "train")


@dataclass(frozen=True)
class Model:
    """What makes pictures."""

    engine: TorchEngine
    prompts: Prompts
    decode: Decoder

    @staticmethod
    def load(source: str) -> "Model":
        """Load a source (ssd1b.models.files) for the torch engine."""
        return Model(TorchEngine(load_unet(source)), Prompts.load(folder_of(source)), Decoder(load_vae(source)))

    @property
    def parameters(self) -> int:
        """Of the UNet."""
        return int(self.engine.unet.num_parameters())


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What came out."""

    numbers: Mapping[str, float]
    """Metrics by name; those over prompts have their 95 % interval beside them as NAME_low and NAME_high."""
    sheet: Image.Image
    """Prompts down; the corpus's own drawing, teacher and student across."""


def compare(config: Evaluate, student_source: str) -> Comparison:
    """Draw with both models and measure.

    Raises:
        ValueError: a source that is no model, or fewer prompts in the corpus than asked for.
    """
    torch.manual_seed(config.seed)
    scorer = Scorer.load()
    rows = [row for split in SPLITS for row in choose(config, split)]
    prompts = [row["captions"][0] for row in rows]
    models = {"teacher": Model.load(config.teacher), "student": Model.load(student_source)}
    pictures = {"drawing": torch.stack([shipped_picture(row["image"]) for row in rows])}
    for name, model in models.items():
        started = time.monotonic()
        pictures[name] = draw(model, prompts, config)
        show(f"{name}: {len(prompts)} pictures of {config.steps} steps in {time.monotonic() - started:.1f} s")
    numbers = {
        **measure(scorer, prompts, pictures),
        **output_errors(models["teacher"].engine.unet, models["student"].engine.unet, config),
        **sizes(models["teacher"], models["student"]),
        **step_times(models["teacher"], models["student"], config),
    }
    half = config.sheet_prompts // 2
    shown = [*range(min(half, config.prompts)), *range(config.prompts, config.prompts + min(half, config.prompts))]
    grid = [[Image.fromarray(made[i].numpy()) for made in pictures.values()] for i in shown]
    words = [f"{prompts[i]}\n({'held-out' if i < config.prompts else 'train'} concept)" for i in shown]
    heads = ["the corpus's drawing", *(f"{name}\n{model.parameters / 1e6:.2f} M" for name, model in models.items())]
    return Comparison(numbers=numbers, sheet=sheet(words, heads, grid))


def choose(config: Evaluate, split: str) -> list[dict[str, Any]]:
    """Return the rows of the corpus whose first captions are the prompts, the same on every machine."""
    rows = [
        row
        for row in pq.read_table(shipped.PATH).to_pylist()
        if row["split"] == split
        and row["style"] in config.styles
        and (not config.subgroups or row["subgroup"] in config.subgroups)
    ]
    if len(rows) < config.prompts:
        raise ValueError(
            f"the corpus has {len(rows)} {split} prompts of these styles and subgroups, not {config.prompts}"
        )
    return sorted(rows, key=lambda row: hashlib.sha256(row["key"].encode()).digest())[: config.prompts]


def shipped_picture(image: bytes) -> Tensor:
    """Return a drawing of the corpus, uint8 (H, W, 3)."""
    return torch.from_numpy(np.array(Image.open(io.BytesIO(image)).convert("RGB")))


def draw(model: Model, prompts: list[str], config: Evaluate) -> Tensor:
    """Return one picture for each prompt, uint8 (N, H, W, 3)."""
    requests = [
        Request(
            prompt=prompt, seed=config.seed + i, steps=config.steps, guidance=config.guidance, sampler=config.sampler
        )
        for i, prompt in enumerate(prompts)
    ]
    return generate(model.engine, model.prompts, model.decode, requests, config.batch)


def measure(scorer: Scorer, prompts: list[str], pictures: Mapping[str, Tensor]) -> dict[str, float]:
    """Return scores and distances; prompts and each model's pictures hold the held-out half first, then the train half.

    "score_kept" is the student's score above chance as a share of the teacher's; "distance_ratio" how far the two
    models' pictures of a prompt are apart, as a share of unrelated pictures'; "pixels_ratio" the same in pixels.
    """
    count = len(prompts) // 2
    halves = {"heldout": slice(0, count), "train": slice(count, None)}
    scores = {name: metrics.above_chance(scorer.cosines(made, prompts)) for name, made in pictures.items()}
    numbers: dict[str, float] = {}
    for half, where in halves.items():
        for name, score_N in scores.items():
            numbers |= metrics.mean(score_N[where]).named(f"{half}_score_{name}")
        numbers |= metrics.ratio(scores["student"][where], scores["teacher"][where]).named(f"{half}_score_kept")
    numbers |= metrics.ratio(scores["student"], scores["teacher"]).named("score_kept")
    features = {name: scorer.features(pictures[name]) for name in ("teacher", "student")}
    for name, distance, of in (
        ("distance", metrics.feature_distance, features),
        ("pixels", metrics.pixel_distance, pictures),
    ):
        paired_N = distance(of["teacher"], of["student"])
        unrelated_N = metrics.unrelated(distance, of["teacher"], of["student"])
        numbers |= {f"{name}_paired": float(paired_N.mean()), f"{name}_unrelated": float(unrelated_N.mean())}
        numbers |= metrics.ratio(paired_N, unrelated_N).named(f"{name}_ratio")
    return numbers


def output_errors(teacher: UNet2DConditionModel, student: UNet2DConditionModel, config: Evaluate) -> dict[str, float]:
    """Return how far the student's noise estimates are from the teacher's, on noisy latents of the corpus.

    Mean squared difference over the mean square of the teacher's, at timesteps spread evenly over the schedule.
    """
    pipeline = load_pipeline(config.teacher, unet=teacher)
    found = {}
    for split in SPLITS:
        asked = asks(pipeline, of_corpus(pipeline, config.error_pictures, split), config.seed)
        found[f"{split}_output_error"] = error(outputs(student, asked), outputs(teacher, asked))
    return found


def sizes(teacher: Model, student: Model) -> dict[str, float]:
    return {
        "parameters_teacher": teacher.parameters,
        "parameters_student": student.parameters,
        "parameters_ratio": student.parameters / teacher.parameters,
    }


def step_times(teacher: Model, student: Model, config: Evaluate, batch: int = 8) -> dict[str, float]:
    """Return milliseconds of a UNet call of `batch` rows for both, and the median of teacher / student.

    The two run in turn and each pair gives one ratio, so that a machine busy with other work slows both alike.
    """
    request = Request(prompt="", sampler=config.sampler, steps=config.steps, guidance=1.0)
    times: list[tuple[float, float]] = []
    for _ in range(config.timing_rounds + 1):
        pair = []
        for model in (teacher, student):
            rows = start(model.prompts, [request] * batch)
            started = time.perf_counter()
            advance(model.engine, rows)
            pair.append(1000 * (time.perf_counter() - started))
        times.append((pair[0], pair[1]))
    measured = times[1:]  # the first call of each also allocates
    return {
        "step_ms_teacher": statistics.median(pair[0] for pair in measured),
        "step_ms_student": statistics.median(pair[1] for pair in measured),
        "step_speedup": statistics.median(pair[0] / pair[1] for pair in measured),
    }
