"""Recipes of jobs.encode: which rows of which manifest become latents, by which VAE."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from ssd1b.recipes.pretrain import CONCEPTS

NANO_STYLES = ("3d render", "flat vector", "soft cartoon", "retro blob", "muted poster")
"""The styles that the nano teachers draw."""
NANO_SUBGROUPS = CONCEPTS
"""The concepts that the nano teachers were taught."""


@dataclass(frozen=True, kw_only=True)
class Encode:
    """Which rows, by which VAE, on how many workers."""

    name: str
    """The latents' name: <home>/latents/<name>."""
    manifest: str
    """The manifest's name."""
    model: str
    """Whose VAE: a source name, see ssd1b.models.files."""
    styles: tuple[str, ...] = ()
    """Take only these styles; empty takes all. What is not taken is reported as not_selected, not as rejected."""
    splits: tuple[str, ...] = ("train",)
    """Take only these splits; empty takes all."""
    subgroups: tuple[str, ...] = ()
    """Take only concepts of these subgroups; empty takes all."""
    workers: int = 2
    """Actors, each with a VAE of its own."""
    gpus_per_worker: float = 0.0
    decode_threads: int = 1
    """CPUs per actor; pictures are decoded on so many threads while the VAE works."""
    decode_tasks: int = 0
    """0 decodes on those threads. More: so many batches are decoded ahead, by tasks of one CPU on any node of the
    cluster, those without a GPU first; the actors then ask for no CPU."""
    batch_size: int = 16
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """The VAE's precision; latents are stored as float16."""
    max_pixels: int = 64_000_000


def nano() -> Encode:
    """What the nano teachers know, train split: the student's distillation set."""
    return Encode(name="nano", manifest="nano", model="nano", styles=NANO_STYLES, subgroups=NANO_SUBGROUPS)


def nano_scenes() -> Encode:
    """The same with backdrops, of the manifest nano_scenes."""
    return replace(nano(), manifest="nano_scenes")


def nano_line() -> Encode:
    """The style no teacher has seen, train split: the LoRA's set."""
    return Encode(name="nano_line", manifest="nano", model="nano", styles=("black line",), subgroups=NANO_SUBGROUPS)


def nano_all() -> Encode:
    """Every row of the shipped corpus, both splits."""
    return Encode(name="nano_all", manifest="nano", model="nano", splits=())


def debug() -> Encode:
    """The 64 rows of the debug manifest."""
    return Encode(name="debug", manifest="debug", model="nano", splits=(), workers=1)


def sdxl() -> Encode:
    """A manifest of SDXL buckets on one GPU per worker; --set manifest=..., --set name=..., --set workers=..."""
    return Encode(
        name="sdxl",
        manifest="parquet",
        model="madebyollin/sdxl-vae-fp16-fix",
        workers=1,
        gpus_per_worker=1.0,
        decode_threads=6,
        batch_size=8,
        dtype="float16",
    )


def sdxl_cpu_nodes() -> Encode:
    """The same, with the pictures decoded on CPU nodes: where GPU nodes have less than a core or two for each GPU."""
    return replace(sdxl(), decode_tasks=8)


RECIPES: dict[str, Callable[[], Encode]] = {
    recipe.__name__: recipe for recipe in (nano, nano_scenes, nano_line, nano_all, debug, sdxl, sdxl_cpu_nodes)
}
