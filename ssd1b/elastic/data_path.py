"""jobs.benchmark data: the way of the data, pictures to pixels and latents to the training loop, in one run."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from ssd1b.command import show
from ssd1b.corpus.benchmark import OURS, picture_contenders
from ssd1b.corpus.contest import Others, left_out, standing, take_turns
from ssd1b.corpus.photographs import write_tars
from ssd1b.elastic.ceiling import NEEDED_ROWS_PER_S, latent_contenders, through_ray, write_part
from ssd1b.recipes.benchmark import DataPath

DECODING = "limit: Pillow's JPEG decoding alone"
KERNELS = "limit: decoding and Lanczos alone"


def data_path(config: DataPath) -> dict[str, Any]:
    """Measure what a recipe describes, print tables and return the same numbers.

    Raises:
        ValueError: one of the other Pythons cannot be run, or a library fails in it.
    """
    with TemporaryDirectory(dir=config.scratch or None) as scratch, ExitStack() as running:
        folder = Path(scratch)
        pythons = [running.enter_context(Others(path, folder)) for path in config.others.split(":") if path]
        missing = left_out(pythons)
        tars = write_tars(
            folder / "tars",
            pictures=config.pictures,
            tars=config.rounds,
            megapixels=config.megapixels,
            seed=config.seed,
        )
        size = sum(tar.stat().st_size for tar in tars) / config.pictures
        show(f"{config.pictures} JPEGs of {config.megapixels} megapixels, {size / 1000:.0f} kB each")
        pictures = standing(
            "pictures to pixels", "images", take_turns(picture_contenders(tars, pythons), config.rounds), OURS
        )
        part = write_part(folder, config.rows, config.seed)
        pa.default_memory_pool().release_unused()
        latents = standing(
            "latents to arrays", "rows", take_turns(latent_contenders(part, pythons), config.rounds), OURS
        )
        feed = through_ray(
            part, rows_per_slice=config.rows_per_slice, rows=config.feed_rows, workers=config.feed_workers
        )
    return {
        "picture_bytes": round(size),
        "libraries": {name: version for python in pythons for name, version in python.found.items()},
        "left_out": missing,
        "pictures": pictures,
        "share_of_decoding_alone": round(pictures[DECODING]["ratio"], 3),
        "share_of_decoding_and_lanczos_alone": round(pictures[KERNELS]["ratio"], 3),
        "latents": latents,
        "feed": feed,
        "feed_of_need": {size: round(rates["rows_per_s"] / NEEDED_ROWS_PER_S, 2) for size, rates in feed.items()},
    }
