"""Teacher against student on every engine of this machine: parameters, UNet calls, whole pictures."""

import platform
import subprocess
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ssd1b.command import show
from ssd1b.engines.bundle import BACKENDS, Bundle, choose
from ssd1b.engines.checks import PROMPT, medians_ms
from ssd1b.engines.engine import Engine
from ssd1b.engines.graph import example_rows
from ssd1b.models.files import load_unet
from ssd1b.recipes.benchmark import Benchmark
from ssd1b.sampling.denoise import Request, generate

MODELS = ("teacher", "student")


def measure(config: Benchmark, folders: Mapping[str, Path]) -> dict[str, Any]:
    """Measure bundles (teacher, student) and print the table; return the same numbers.

    Both models and all engines take turns within one run, so their ratios hold on a busy machine too.
    """
    bundles = {(backend, model): Bundle.load(folders[model], backend) for backend in backends() for model in MODELS}
    engines = {key: bundle.engine() for key, bundle in bundles.items()}
    unets = {model: load_unet(str(folders[model])) for model in MODELS}
    parameters = {model: int(unet.num_parameters()) for model, unet in unets.items()}
    result: dict[str, Any] = {
        "machine": machine(list(dict.fromkeys(backend for backend, _ in bundles))),
        "parameters": parameters | {"ratio": round(parameters["teacher"] / parameters["student"], 3)},
        "step_ms": {},
    }
    show(f"{'':22s}{'teacher':>14s}{'student':>14s}{'ratio':>8s}")
    show(line("parameters", result["parameters"], "14,.0f"))
    tokens = bundles["torch", "student"].prompts.limit + 2
    for batch in config.batches:
        calls = {key: step(engine, example_rows(unets[key[1]], tokens, batch)) for key, engine in engines.items()}
        result["step_ms"][batch] = table(f"ms, batch {batch}", calls, engines, config.repeats)
    request = Request(prompt=PROMPT, steps=config.image_steps)
    pictures = {key: picture(bundles[key], engine, request) for key, engine in engines.items()}
    result["image_ms"] = table(f"ms, {config.image_steps} steps", pictures, engines, config.image_repeats)
    return result


Key = tuple[str, str]
Call = Callable[[], object]


def step(engine: Engine, rows: tuple[torch.Tensor, ...]) -> Call:
    return lambda: engine(*rows)


def picture(bundle: Bundle, engine: Engine, request: Request) -> Call:
    """Return a call that makes one picture from its prompt, text towers and VAE included."""
    return lambda: generate(engine, bundle.prompts, bundle.decode, [request])


def table(
    title: str, calls: Mapping[Key, Call], engines: Mapping[Key, Engine], repeats: int
) -> dict[str, dict[str, float]]:
    """Time the calls in turns, print a line for each engine, and return them with their ratios."""
    times = medians_ms({f"{backend}/{model}": call for (backend, model), call in calls.items()}, repeats)
    result = {}
    for backend in dict.fromkeys(backend for backend, _ in calls):
        by_model = {model: round(times[f"{backend}/{model}"], 2) for model in MODELS}
        name = engines[backend, "student"].name
        result[name] = by_model | {"ratio": round(by_model["teacher"] / by_model["student"], 2)}
        show(line(f"{name} {title}", result[name], "14.2f"))
    return result


def line(title: str, values: Mapping[str, float], form: str) -> str:
    return f"{title:32s}" + "".join(f"{values[model]:{form}}" for model in MODELS) + f"{values['ratio']:8.2f}"


def backends() -> list[str]:
    """Return the backends that are installed, torch first."""
    found = []
    for name in reversed(BACKENDS):
        try:
            found.append(choose(name)[0])
        except ValueError as error:
            show(f"left out: {error}")
    return found


def machine(used: list[str]) -> dict[str, Any]:
    """Return what the numbers depend on: processor, threads, commit, versions."""
    return {
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("diffusers", *used)},
    }


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [text.partition(":")[2].strip() for text in lines if text.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def commit() -> str | None:
    """Return the commit of the working tree, or None outside one: a submitted job's folder is a copy without .git."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None if done.returncode == 0 else None
