"""Measure teacher, student and adapters on every engine of this machine: python -m jobs.benchmark engine.

`full_size` instead carves the real SDXL (random weights) to SSD-1B, saves it, reads it again and calls both.
`corpus_scale` instead takes fifteen million rows of metadata from Parquet to the first batch of an epoch.
`data` instead reads pictures and latents, against other libraries: --set others=/path/to/python.
`faults` instead kills, drains and grows an elastic run in every way there is, and tells what each cost.
`curves` instead lays the losses of 1, 2 and 3 workers, and of a run with three failures, over one another.
`serve` instead sends the same requests to our endpoint and three others, one after the other.
`serve_faults` instead hurts our endpoint in fourteen ways under load, and counts answers, errors and charges.
`serve_soak` instead moves champions and adapters and kills replicas under all dialects' clients, and compares pictures.
`train` instead measures a training step: against plain PyTorch, its own passes, through Ray; and at full size.
"""

from collections.abc import Callable
from typing import Any

from ssd1b.command import main
from ssd1b.elastic.data_path import data_path
from ssd1b.elastic.scale import corpus_scale
from ssd1b.provenance import machine
from ssd1b.pruning.full_size import full_size
from ssd1b.recipes.benchmark import RECIPES, CorpusScale, Curves, DataPath, EngineContest, Faults, FullSize, TrainStep
from ssd1b.recipes.serving import RECIPES as SERVING
from ssd1b.recipes.serving import Served, ServeFaults, ServeLoad, ServeSoak
from ssd1b.trials.benchmark import train
from ssd1b.trials.curves import curves
from ssd1b.trials.engine_contest import engine_contest
from ssd1b.trials.faults import faults
from ssd1b.trials.load.contest import contest
from ssd1b.trials.load.drill import drill
from ssd1b.trials.load.soak import soak

SERVED: dict[type, Callable[[Any], dict[str, Any]]] = {ServeLoad: contest, ServeFaults: drill, ServeSoak: soak}


def run(
    config: EngineContest | FullSize | CorpusScale | DataPath | Faults | Curves | TrainStep | Served,
) -> dict[str, Any]:
    if isinstance(config, Served):
        return SERVED[type(config)](config)
    if isinstance(config, EngineContest):
        return engine_contest(config)
    if isinstance(config, TrainStep):
        return {"machine": machine(["ray", "torch"]), **train(config)}
    if isinstance(config, Curves):
        return {"machine": machine(["ray", "torch"]), **curves(config)}
    if isinstance(config, Faults):
        return {"machine": machine(["ray", "torch"]), **faults(config)}
    if isinstance(config, DataPath):
        return {"machine": machine(["pillow", "pyarrow", "ray"]), **data_path(config)}
    if isinstance(config, CorpusScale):
        return corpus_scale(config)
    return full_size(config)


if __name__ == "__main__":
    main({**RECIPES, **SERVING}, run)
