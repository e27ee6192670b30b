"""The shipped corpus in memory, as pretraining wants it: drawings on white, and the same before backdrops."""

import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from ssd1b.corpus import shipped
from ssd1b.corpus.backdrops import BACKDROPS, PAPER, lay

# N pictures, C colour channels (3), H W pixels


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures with captions."""

    pixels_NCHW: Tensor
    """uint8."""
    captions: list[list[str]]
    concepts: list[str]
    styles: list[str]
    backdrops: list[str]
    """Names of ssd1b.corpus.backdrops; "white" where the drawing is as it was."""

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
        backdrops=[PAPER] * len(rows),
    )


def before(
    pictures: Pictures, backdrops: Iterable[str], held_out: Iterable[tuple[str, str]] = (), one_each: bool = False
) -> Pictures:
    """Return drawings on white, then each of them before every backdrop, but for held-out pairs of (style, backdrop).

    With one_each every drawing is laid before one backdrop only, the next in turn.

    Raises:
        ValueError: a backdrop that there is not.
    """
    backdrops, held_out = list(backdrops), set(held_out)
    if unknown := {name for name in [*backdrops, *(pair[1] for pair in held_out)] if name not in BACKDROPS}:
        raise ValueError(f"no backdrop {sorted(unknown)}: choose from {sorted(BACKDROPS)}")
    pairs = [
        (i, name)
        for turn, name in enumerate(backdrops)
        for i, style in enumerate(pictures.styles)
        if (style, name) not in held_out and (not one_each or i % len(backdrops) == turn)
    ]
    drawings_NHWC = pictures.pixels_NCHW.permute(0, 2, 3, 1).numpy()
    laid = [torch.from_numpy(lay(drawings_NHWC[i], BACKDROPS[name])).permute(2, 0, 1) for i, name in pairs]
    return Pictures(
        pixels_NCHW=torch.stack([*pictures.pixels_NCHW, *laid]),
        captions=pictures.captions
        + [[f"{caption}, {BACKDROPS[name].phrase}" for caption in pictures.captions[i]] for i, name in pairs],
        concepts=pictures.concepts + [pictures.concepts[i] for i, _ in pairs],
        styles=pictures.styles + [pictures.styles[i] for i, _ in pairs],
        backdrops=pictures.backdrops + [name for _, name in pairs],
    )
