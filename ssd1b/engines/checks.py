"""What a bundle must show before it is registered: the same picture as torch, and adapters that change it."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ssd1b.adapters.adapter import Adapter, Layers
from ssd1b.engines.bank import Layout
from ssd1b.engines.bundle import Bundle
from ssd1b.engines.engine import Engine
from ssd1b.engines.graph import example_rows
from ssd1b.engines.on_torch import TorchEngine
from ssd1b.models.files import load_unet
from ssd1b.sampling.decode import Decoder
from ssd1b.sampling.denoise import Request, generate

PROMPT = "a red apple, flat vector style"


def picture_difference(bundle: Bundle, engine: Engine, steps: int) -> dict[str, float]:
    """Return how far the engine's picture is from torch's in float32, in grey levels of 255: the worst and the mean."""
    request = Request(prompt=PROMPT, seed=1, steps=steps)
    theirs = generate(
        TorchEngine(load_unet(str(bundle.folder))), bundle.prompts, Decoder.load(bundle.folder), [request]
    )
    ours = generate(engine, bundle.prompts, bundle.decode, [request])
    difference = (ours.int() - theirs.int()).abs().float()
    return {"levels_max": difference.max().item(), "levels_mean": round(difference.mean().item(), 3)}


def adapter_difference(engine: Engine, reference: TorchEngine, adapter: Adapter, tokens: int) -> dict[str, float]:
    """Return what an adapter changes of the predicted noise, and how far the engine is from torch with it.

    Row 0 carries the adapter, row 1 does not: `bystander` is what the adapter changes of row 1, and must be 0. All are
    worst elements; the predicted noise has a standard deviation of about 1. Slot 1 is emptied again. tokens is the
    prompt length.
    """
    rows = example_rows(reference.unet, tokens, 2)
    slotted = (*rows[:5], torch.tensor([1, 0]), rows[6])
    before = engine(*slotted)  # the same graph with an empty slot, so that only the adapter differs
    for each in (engine, reference):
        each.load_adapter(1, adapter)
    after, expected = engine(*slotted), reference(*slotted)
    for each in (engine, reference):
        each.load_adapter(1, None)
    return {
        "change": worst(after[0], before[0]),
        "bystander": worst(after[1], before[1]),
        "error": worst(after, expected),
    }


def random_adapter(engine: Engine, rank: int = 2, size: float = 0.2, seed: int = 0) -> Adapter:
    """Return an adapter that changes every layer, to prove the side paths where no trained one is at hand."""
    return Adapter("random", random_layers(engine.layout, rank, size, seed))


def random_layers(layout: Layout, rank: int, size: float, seed: int = 0) -> Layers:
    """Return A and B of noise for every layer of a layout; A keeps the size of what it reads, B gives it this one."""
    generator = torch.Generator().manual_seed(seed)
    return {
        path: (
            torch.randn(shape.fan_in, rank, generator=generator) * shape.fan_in**-0.5,
            torch.randn(rank, shape.outside, generator=generator) * size,
        )
        for path, shape in layout.shapes.items()
    }


def worst(ours: Tensor, theirs: Tensor) -> float:
    return (ours - theirs).abs().max().item()


def medians_ms(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median wall time of each call, milliseconds.

    The calls take turns, so that what else the machine does meets all of them alike; the first turn is not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if turn:
                times[name].append((time.perf_counter() - started) * 1000)
    return {name: statistics.median(values) for name, values in times.items()}
