"""Pictures with the size and the cost of photographs, for benchmarks: none are shipped that large.

A drawing of the shipped corpus is enlarged by bicubic interpolation, given soft structure (noise drawn at an eighth of
the size and enlarged) and grain (noise of every pixel), and written as JPEG of quality 90 with 4:2:0 colours. About 1.2
megapixels in the aspects of a web corpus come to 200 to 400 kB, as photographs of that size do.
"""

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from ssd1b.corpus import shipped
from ssd1b.sizes import SDXL_BUCKETS, Size, nearest_bucket

SOFT, GRAIN = 22.0, 4.0
"""Standard deviations of the two noises, of 255."""
QUALITY = 90
ASPECTS = (2 / 3, 3 / 2)
"""Smallest and largest; drawn evenly in their logarithm."""


def write_tars(folder: Path, *, pictures: int, tars: int, megapixels: float, seed: int = 0) -> list[Path]:
    """Write WebDataset tars of KEY.jpg and KEY.txt and return them; the same seed gives the same bytes of pixels."""
    random = np.random.default_rng(seed)
    columns = pq.read_table(shipped.PATH, columns=["image", "captions"])
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, share in enumerate(np.array_split(np.arange(pictures), tars)):
        paths.append(folder / f"{number:05d}.tar")
        with tarfile.open(paths[-1], "w") as tar:
            for i in share.tolist():
                row = columns.slice(i % len(columns), 1).to_pylist()[0]
                jpeg = photograph(row["image"], size(megapixels, random), random)
                for suffix, data in (("jpg", jpeg), ("txt", row["captions"][0].encode())):
                    entry = tarfile.TarInfo(f"{i:08d}.{suffix}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
    return paths


def size(megapixels: float, random: np.random.Generator) -> Size:
    """Return a size of so many million pixels that covers its SDXL bucket."""
    while True:
        aspect = float(np.exp(random.uniform(*np.log(ASPECTS))))
        width = round((megapixels * 1e6 * aspect) ** 0.5)
        found = Size(round(width / aspect), width)
        bucket = nearest_bucket(found, SDXL_BUCKETS)
        if found.height >= bucket.height and found.width >= bucket.width:
            return found


def photograph(drawing: bytes, size: Size, random: np.random.Generator) -> bytes:
    """Return a drawing as a JPEG that is about as hard to compress as a photograph."""
    bicubic = Image.Resampling.BICUBIC
    image = Image.open(io.BytesIO(drawing)).convert("RGB").resize((size.width, size.height), bicubic)
    coarse_HWC = random.normal(128, SOFT, (size.height // 8, size.width // 8, 3)).clip(0, 255).astype(np.uint8)
    soft_HWC = np.asarray(Image.fromarray(coarse_HWC).resize((size.width, size.height), bicubic), np.float32) - 128
    grain_HWC = random.standard_normal((size.height, size.width, 3), np.float32) * GRAIN
    pixels_HWC = (np.asarray(image, np.float32) + soft_HWC + grain_HWC).clip(0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels_HWC).save(out, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return out.getvalue()
