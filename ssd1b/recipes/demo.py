"""The whole way once: which jobs, in what order, and what the gallery shows."""

from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Step:
    """One submitted job."""

    name: str
    entrypoint: str
    """What `ray job submit` would run."""
    says: str
    """What a person should know while it runs."""
    may_refuse: bool = False
    """A result that it printed counts, also where it then failed."""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """One run of jobs.demo."""

    steps: tuple[Step, ...]
    prompts: tuple[str, ...]
    """Rows of the gallery."""
    seed: int = 7
    sampling_steps: int = 20
    guidance: float = 4.0
    run: str = "ssd1b-nano"
    """Name of the distillation run, whose stages the gallery shows."""
    stages: tuple[str, ...] = ("mid", "down", "up")
    teacher: str = "nano"
    lora: str = "black-line"
    lora_style: str = "black line"
    """The words of that style, which its prompts end with in place of their own."""
    endpoint: str = "http://127.0.0.1:8000"
    size: str = "128x128"


def nano() -> Demo:
    """Corpus to endpoint on the nano family, on a local cluster."""
    return Demo(
        steps=(
            Step(
                name="ingest", entrypoint="python -m jobs.ingest nano_scenes", says="pairs -> manifest, rejects counted"
            ),
            Step(
                name="encode", entrypoint="python -m jobs.encode nano_scenes", says="pictures -> latents (VAE actors)"
            ),
            Step(
                name="distill",
                entrypoint="python -m jobs.distill ssd1b_nano",
                says="three stages, three teachers, elastic workers; registers @candidate",
            ),
            Step(
                name="line",
                entrypoint="python -m jobs.encode nano_line --set manifest=nano_scenes",
                says="latents of a style nobody has seen",
            ),
            Step(name="lora", entrypoint="python -m jobs.lora nano", says="an adapter for that style on the student"),
            Step(name="evaluate", entrypoint="python -m jobs.evaluate nano", says="student against teacher"),
            Step(
                name="promote",
                entrypoint="python -m jobs.promote nano",
                says="@candidate -> @champion, if the gates hold",
            ),
            Step(name="export", entrypoint="python -m jobs.export nano", says="ONNX + the fastest engine of this CPU"),
            Step(name="serve", entrypoint="python -m serve.app up --detach", says="the champion behind HTTP"),
        ),
        prompts=(
            "a red apple, 3d render style",
            "a tiger face, flat vector style, in a meadow",
            "a strawberry, soft cartoon style, on a blue background",
            "a panda, flat vector style, on a pink background",
            "a doughnut, 3d render style, at sunset",
            "a fox, soft cartoon style, at night",
            "an elephant, muted poster style, at the beach",
        ),
    )


def reproduce() -> Demo:
    """The announcement's story on the nano family: three stages under three teachers, four times the demo's steps."""
    run = "ssd1b-nano-reproduced"
    return replace(
        nano(),
        run=run,
        teacher="nano+poster",
        steps=(
            Step(name="ingest", entrypoint="python -m jobs.ingest nano_scenes", says="pairs -> manifest"),
            Step(name="encode", entrypoint="python -m jobs.encode nano_scenes", says="pictures -> latents"),
            Step(
                name="distill",
                entrypoint="python -m jobs.distill ssd1b_nano_long",
                says="three stages under three teachers; goes on where it was interrupted",
            ),
            Step(
                name="evaluate",
                entrypoint=f"python -m jobs.evaluate nano --set name={run}",
                says="student against teacher: scores, distances, steps; report.html",
            ),
            Step(
                name="promote",
                entrypoint=f"python -m jobs.promote nano --set name={run}",
                says="do the gates hold?",
                may_refuse=True,
            ),
        ),
    )


RECIPES: dict[str, Callable[[], Demo]] = {"nano": nano}
