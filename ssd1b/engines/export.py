"""The checks and timings of an export, with a line of progress for each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssd1b.command import show
from ssd1b.engines.bundle import Bundle
from ssd1b.engines.checks import adapter_difference, medians_ms, picture_difference, random_adapter
from ssd1b.engines.graph import example_rows
from ssd1b.engines.on_torch import TorchEngine
from ssd1b.models.files import load_unet


def check(bundle: Bundle, adapters: Mapping[str, Path], steps: int) -> dict[str, Any]:
    """Compare the bundle's engine with torch: one picture, one made-up adapter and every given one.

    An adapter that the engine cannot hold does not stop the export: it is named in the result with the reason.
    """
    engine, tokens = bundle.engine(), bundle.prompts.limit + 2
    reference = TorchEngine(load_unet(str(bundle.folder)), slots=engine.slots, rank=engine.rank)
    picture = picture_difference(bundle, engine, steps)
    show(f"{engine.name}: its picture differs from torch's by {picture['levels_mean']} levels of 255 on average, "
         f"{picture['levels_max']:.0f} at worst")  # fmt: skip
    proofs = {"random": adapter_difference(engine, reference, random_adapter(engine), tokens)}
    refused = {}
    for name, path in adapters.items():
        try:
            adapter, report = bundle.read_adapter(path, engine, name)
            proofs[name] = adapter_difference(engine, reference, adapter, tokens)
            show(f"adapter {name}: {report}")
        except ValueError as error:
            refused[name] = str(error)
    for name, proof in proofs.items():
        show(f"adapter {name} in the graph: changes the noise by up to {proof['change']:.3g}, its neighbour by "
             f"{proof['bystander']:.3g}, is {proof['error']:.2g} from torch")  # fmt: skip
    for name, reason in refused.items():
        show(f"adapter {name} refused: {reason}")
    return {"engine": engine.name, "picture": picture, "adapters": proofs, "refused": refused}


def step_times(bundles: Mapping[str, Bundle], batch: int, repeats: int) -> dict[str, dict[str, float]]:
    """Return the median time of a UNet call on each bundle's engine and on torch, ms, and their ratios."""
    calls = {}
    for name, bundle in bundles.items():
        unet = load_unet(str(bundle.folder))
        rows = example_rows(unet, bundle.prompts.limit + 2, batch)
        for engine in (TorchEngine(unet), bundle.engine()):
            calls[f"{engine.name} {name}"] = lambda engine=engine, rows=rows: engine(*rows)
    times = {key: round(value, 2) for key, value in medians_ms(calls, repeats).items()}
    result: dict[str, dict[str, float]] = {}
    for key, value in times.items():
        engine_name, _, name = key.rpartition(" ")
        result.setdefault(engine_name, {})[name] = value
    for engine_name, by_model in result.items():
        by_model["ratio"] = round(by_model["teacher"] / by_model["student"], 2)
        show(f"{engine_name:16s} batch {batch}: teacher {by_model['teacher']:8.2f} ms  student "
             f"{by_model['student']:8.2f} ms  ratio {by_model['ratio']:.2f}")  # fmt: skip
    return result
