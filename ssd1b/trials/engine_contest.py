"""jobs.benchmark engine: what a step costs on every CPU engine of this machine, and what adapters add to it.

One run, in turns, so that the ratios hold on a busy machine too. Plain diffusers in eager torch is what all is measured
against. A GPU is measured by gpu_engine.py.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ssd1b import tracking
from ssd1b.adapters.adapter import Adapter
from ssd1b.command import show
from ssd1b.engines.bundle import BACKENDS, Bundle, built, choose
from ssd1b.engines.checks import random_layers
from ssd1b.engines.engine import Engine
from ssd1b.engines.graph import example_rows
from ssd1b.engines.on_torch import TorchEngine
from ssd1b.family.carve import carve, keep_map
from ssd1b.family.measure import example
from ssd1b.family.table import FAMILY
from ssd1b.home import home
from ssd1b.models.files import load_pipeline, load_unet
from ssd1b.models.local import folder_of
from ssd1b.provenance import machine
from ssd1b.pruning.full_size import random_unet
from ssd1b.recipes.benchmark import EngineContest
from ssd1b.sizes import Size
from ssd1b.trials.contenders import PLAIN, SIZE, engine_call, fill, fused_into, plain_call
from ssd1b.trials.same_picture import same_pictures
from ssd1b.trials.turns import Call, medians_ms

MODELS = ("teacher", "student")


def engine_contest(config: EngineContest) -> dict[str, Any]:
    """Measure what a recipe describes, print the tables and return the same numbers.

    Raises:
        ValueError: no such model.
    """
    with tempfile.TemporaryDirectory(prefix="engine-contest-") as scratch:
        folders = dict(zip(MODELS, models(config, Path(scratch)), strict=True))
        found = backends()
        bundles = {(backend, model): bundle_of(config, folder, model, backend)
                   for backend in found for model, folder in folders.items()}  # fmt: skip
        unets = {model: load_unet(str(folder)) for model, folder in folders.items()}
        result: dict[str, Any] = {
            "machine": machine(sorted({BACKENDS[backend] for backend in found})),
            "parameters": {model: int(unet.num_parameters()) for model, unet in unets.items()},
        }
        result["step_ms"] = steps(config, bundles, unets)
        result["same_picture_db"] = same_pictures(bundles[backend, "teacher"] for backend in found)
        students = {backend: bundle for (backend, model), bundle in bundles.items() if model == "student"}
        slots, rows = 1 + max(config.adapters), example_rows(unets["student"], 77, config.bank_rows)
        result["bank"] = {
            backend: bank(config, partial(with_rank, bundle, slots), rows, config.bank_rows)
            for backend, bundle in students.items()
        }
        result["live_ms"] = live(config, unets["student"], students, result["step_ms"])
        result["decode"] = decodes(config, students, unets["student"], result["step_ms"])
    if config.full_width:
        result["bank_full_width"] = full_width(config)
    return result


def models(config: EngineContest, scratch: Path) -> tuple[Path, Path]:
    """Return the folders of teacher and student."""
    teacher = folder(config.teacher)
    if config.student not in FAMILY:
        return teacher, folder(config.student)
    unet = load_unet(str(teacher))
    student = carve(unet, keep_map(unet.config, config.student))
    load_pipeline(str(teacher), unet=student).save_pretrained(scratch / "student")
    return teacher, scratch / "student"


def folder(source: str) -> Path:
    return tracking.download(source) if source.startswith("models:/") else folder_of(source)


def bundle_of(config: EngineContest, folder: Path, model: str, backend: str) -> Bundle:
    made = built(folder, home() / "bundles", name=f"contest-{model}", base=getattr(config, model), slots=9, rank=8)
    return Bundle.load(made.folder, backend)


def backends() -> list[str]:
    """Return the backends for CPUs that are installed, torch first."""
    found = []
    for name in (name for name in reversed(BACKENDS) if name != "compiled"):
        try:
            found.append(choose(name)[0])
        except ValueError as error:
            show(f"left out: {error}")
    return found


# ---- steps


def steps(
    config: EngineContest, bundles: Mapping[tuple[str, str], Bundle], unets: Mapping[str, UNet2DConditionModel]
) -> dict[str, Any]:
    """Return by batch and engine the milliseconds of a UNet call of teacher and student, and their ratio."""
    engines = {key: bundle.engine() for key, bundle in bundles.items()}
    show(f"{'a UNet call, ms':32s}{'teacher':>10s}{'student':>10s}{'ratio':>8s}{'over diffusers':>16s}")
    result: dict[str, Any] = {}
    for batch in config.batches:
        calls: dict[str, Call] = {}
        for model, unet in unets.items():
            rows = example_rows(unet, 77, batch)
            calls[f"{PLAIN}/{model}"] = plain_call(unet, rows)
            for (_, of), engine in engines.items():
                if of == model:
                    calls[f"{engine.name}/{model}"] = engine_call(engine, rows)
        times = medians_ms(calls, config.repeats)
        result[str(batch)] = {}
        for name in dict.fromkeys(key.rpartition("/")[0] for key in calls):
            teacher, student = (times[f"{name}/{model}"] for model in MODELS)
            row = {"teacher": round(teacher, 2), "student": round(student, 2), "ratio": round(teacher / student, 3),
                   "over_diffusers": round(times[f"{PLAIN}/student"] / student, 2)}  # fmt: skip
            result[str(batch)][name] = row
            show(f"{f'{name}, batch {batch}':32s}{teacher:>10.2f}{student:>10.2f}{row['ratio']:>8.3f}"
                 f"{row['over_diffusers']:>16.2f}")  # fmt: skip
    return result


# ---- adapters


EngineOfRank = Callable[[int], Engine]


def with_rank(bundle: Bundle, slots: int, rank: int) -> Engine:
    return bundle.engine(slots=slots, rank=rank)


def bank(
    config: EngineContest, engine_of_rank: EngineOfRank, rows: tuple[Tensor, ...], batch: int
) -> dict[str, dict[str, float]]:
    """Return by rank what a call costs over one without adapters, for each number of different adapters in it."""
    result: dict[str, dict[str, float]] = {}
    for rank in config.ranks:
        engine = engine_of_rank(rank)
        fill(engine, rank, max(config.adapters))
        calls: dict[str, Call] = {"none": engine_call(engine, rows)}
        for number in config.adapters:
            slot_B = 1 + torch.arange(batch) % number
            calls[str(number)] = engine_call(engine, (*rows[:5], slot_B, rows[6]))
        times = medians_ms(calls, config.repeats)
        result[str(rank)] = {"none_ms": round(times["none"], 2)} | {
            f"{number}_adapters": round(times[str(number)] / times["none"], 3) for number in config.adapters
        }
        told = "  ".join(f"{number} different: {times[str(number)] / times['none']:.3f}" for number in config.adapters)
        show(f"{engine.name}, {batch} rows with adapters of rank {rank}, over {batch} rows without: {told}")
    return result


def full_width(config: EngineContest) -> dict[str, Any]:
    """Return what `bank` says of a UNet of real width with random weights, in eager torch in bfloat16."""
    unet, size = random_unet(config.full_width, 0), Size.parse(config.full_size)
    asked = example(unet, size, config.full_rows)
    added = asked["added_cond_kwargs"]
    rows = (asked["sample"], asked["timestep"], asked["encoder_hidden_states"], added["text_embeds"], added["time_ids"],
            torch.zeros(config.full_rows, dtype=torch.int64), torch.ones(config.full_rows))  # fmt: skip
    show(f"{config.full_width} at its real width, {config.full_size}, bfloat16:")
    slots = 1 + max(config.adapters)
    few = 3  # a call takes seconds
    narrowed = replace(config, repeats=few)
    return bank(narrowed, lambda rank: TorchEngine(unet, slots=slots, rank=rank), rows, config.full_rows)


def live(
    config: EngineContest, unet: UNet2DConditionModel, students: Mapping[str, Bundle], step_ms: Mapping[str, Any]
) -> dict[str, Any]:
    """Return how long an adapter takes from memory to its first step, by engine, and diffusers' load and fuse."""
    rank = config.ranks[len(config.ranks) // 2]
    engines = [bundle.engine(slots=3, rank=rank) for bundle in students.values()]
    adapter = Adapter("live", random_layers(engines[0].layout, rank, SIZE))
    calls: dict[str, Call] = {engine.name: partial(engine.load_adapter, 1, adapter) for engine in engines}
    calls[PLAIN] = fused_into(unet, adapter)
    times = medians_ms(calls, config.repeats)
    result: dict[str, Any] = {"rank": rank}
    batch = str(config.batches[-1])
    for name, taken in times.items():
        step = step_ms[batch][name]["student"]
        result[name] = {"ms": round(taken, 2), "steps": round(taken / step, 3),
                        "over_diffusers": round(times[PLAIN] / taken, 1)}  # fmt: skip
        how = "load_lora_adapter, fuse_lora" if name == PLAIN else "into a slot"
        show(f"an adapter of rank {rank} made live on {name} ({how}): {taken:.1f} ms, {taken / step:.2f} of a step of "
             f"batch {batch}")  # fmt: skip
    return result


# ---- the VAE


def decodes(
    config: EngineContest, students: Mapping[str, Bundle], unet: UNet2DConditionModel, step_ms: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what decoding a picture takes by backend, and its share of a whole picture of so many guided steps."""
    side = unet.config.sample_size
    latents_BCHW = torch.randn(1, unet.config.in_channels, side, side, generator=torch.Generator().manual_seed(0))
    calls: dict[str, Call] = {backend: partial(bundle.decode, latents_BCHW) for backend, bundle in students.items()}
    result: dict[str, Any] = {}
    for backend, taken in medians_ms(calls, config.repeats).items():
        # a guided step of one picture is a call of two rows: about half of one of four
        batch = "4" if "4" in step_ms else str(config.batches[-1])
        name = next(name for name in step_ms[batch] if name.split()[0] == backend)
        step = step_ms[batch][name]["student"] * 2 / int(batch)
        shares = {str(steps): round(taken / (taken + steps * step), 3) for steps in config.image_steps}
        result[backend] = {"ms": round(taken, 2), "share": shares}
        told = ", ".join(f"{share:.0%} of a picture of {steps} steps" for steps, share in shares.items())
        show(f"decoding a picture on {backend}: {taken:.1f} ms, {told}")
    return result
