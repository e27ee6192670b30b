"""A few latents in the schema of jobs.encode, and a pair of small random models in diffusers layout."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ssd1b.family.table import new_unet
from ssd1b.models.files import NANO

CAPTIONS = ["a red apple, flat vector style", "apple", "a green pear, 3d render style"]


def sample_id(i: int) -> int:
    """Return the id of row i: all 64 bits, on both sides of 2**63, as real ones."""
    return (i + 1) * 0x9E3779B97F4A7C15 % 2**64


def write_latents(
    folder: Path, rows: int = 40, *, heldout: int = 3, side: int = 16, rows_per_group: int = 7, first: int = 0
) -> Path:
    """Write rows to train on and some held out; two files, several row groups; ids from `first`. Returns the folder."""
    random = np.random.default_rng(5)
    bucket = folder / f"bucket={8 * side}x{8 * side}"
    bucket.mkdir(parents=True)
    table = []
    for i in range(rows + heldout):
        latent = random.standard_normal((4, side, side)).astype(np.float16)
        sizes = dict.fromkeys(("original_height", "original_width", "target_height", "target_width"), 8 * side)
        table.append(
            {
                "sample_id": sample_id(first + i),
                "mean": latent.tobytes(),
                "std": np.full_like(latent, 0.1).tobytes(),
                **sizes,
                "crop_top": 0,
                "crop_left": 0,
                "captions": CAPTIONS[: 1 + i % 3],
                "split": "heldout" if i % 9 == 4 and i // 9 < heldout else "train",
                "style": "flat vector",
                "concept": f"{i:x}",
            }
        )
    kinds = {"sample_id": pa.uint64(), "mean": pa.binary(), "std": pa.binary(), "captions": pa.list_(pa.string())}
    columns = {name: pa.array([row[name] for row in table], kinds.get(name)) for name in table[0]}
    whole = pa.table(columns)
    half = len(whole) // 2
    for i, part in enumerate((whole[:half], whole[half:])):
        pq.write_table(part, bucket / f"part-{i}.parquet", row_group_size=rows_per_group)
    (folder / "_summary.json").write_text(
        json.dumps({"rows_kept": rows + heldout, "model": "nano", "vae": "nano's", "scaling_factor": 1.0})
    )
    return folder


def write_model(folder: Path, seed: int) -> str:
    """Write the nano pipeline with random weights that depend on the seed alone; returns its source name."""
    shutil.copytree(NANO, folder, ignore=shutil.ignore_patterns("unet", "experts"))
    torch.manual_seed(seed)
    new_unet("nano-sdxl").save_pretrained(folder / "unet")
    return str(folder)
