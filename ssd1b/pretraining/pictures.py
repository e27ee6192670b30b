"""The shipped corpus in memory, as pretraining wants it."""

import io
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from ssd1b.corpus import shipped

# N pictures, C colour channels (3), H W pixels


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures with captions."""

    pixels_NCHW: Tensor
    """uint8."""
    captions: list[list[str]]
    concepts: list[str]
    styles: list[str]

    def __len__(self) -> int:
        return len(self.captions)


def read_pictures(*, split: str = "train", styles: tuple[str, ...] = (), subgroups: tuple[str, ...] = ()) -> Pictures:
    """Return the pictures of a split, of the given styles and subgroups (all where none is given)."""
    rows = pq.read_table(shipped.PATH).to_pylist()
    for field, wanted in (("style", styles), ("subgroup", subgroups)):
        known = {row[field] for row in rows}
        if unknown := set(wanted) - known:
            raise ValueError(f"the corpus has no {field} {sorted(unknown)}: choose from {sorted(known)}")
    rows = [
        row
        for row in rows
        if row["split"] == split
        and (not styles or row["style"] in styles)
        and (not subgroups or row["subgroup"] in subgroups)
    ]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(row["image"])).convert("RGB")) for row in rows])
    return Pictures(
        pixels_NCHW=torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        captions=[row["captions"] for row in rows],
        concepts=[row["concept"] for row in rows],
        styles=[row["style"] for row in rows],
    )
