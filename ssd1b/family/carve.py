"""Carving: a student is its teacher minus blocks, weights and all.

Which blocks stay is a keep map. For the members of the family it is declared here. Segmind never published theirs:
of ten transformer blocks SSD-1B keeps the 1st, 2nd, 3rd and 7th and of two the first, as furusu found by cosine
similarity (SSD-1B-anime model card), and the third attention of the first up block whole. Layers go by BK-SDM's rule
(arXiv 2305.15798): on the way down the first stay; on the way up the first and the last, whose inputs have widths of
their own.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ssd1b.family.keep import Block, KeepMap, Layer, check, everything, read_keep_map, student_config
from ssd1b.family.table import member

SHIPPED = Path(__file__).parents[1] / "assets" / "keep_maps"
"""Maps that were chosen by measurement: nano-measured.json by `python -m jobs.carve nano --params 4672516`."""

KEEP: dict[tuple[int, int], tuple[int, ...]] = {
    (10, 4): (0, 1, 2, 6),
    (10, 2): (0, 1),
    (4, 2): (0, 1),
    (2, 1): (0,),
    (10, 6): (0, 1, 2, 3, 4, 5),
    (10, 5): (0, 1, 2, 3, 4),
    (6, 5): (0, 1, 2, 3, 4),
}
"""Which transformer blocks stay where so many become so few. Vega's and KOALA's are ours: the first ones, so that
carving through SSD-1B and at once agree."""


def keep_map(config: Mapping[str, Any], student: str) -> KeepMap:
    """Return the map from a UNet of a diffusers config to a student.

    student: a member of the family, a map that ships here by its name ("nano-measured"), or a keep map's file.

    Raises:
        ValueError: no such student, or it is no smaller form of the UNet.
    """
    shipped = SHIPPED / f"{student}.json"
    if student.endswith(".json") or shipped.is_file():
        kept = read_keep_map(shipped if shipped.is_file() else Path(student))
        check(everything(config), kept)
        return kept
    return declared(config, member(student))


def declared(config: Mapping[str, Any], student: Mapping[str, Any]) -> KeepMap:
    """Return the declared keep map from a UNet of one diffusers config to the anatomy of another, whatever its widths.

    Raises:
        ValueError: the student is no smaller form of the UNet, or no rule says which blocks stay.
    """
    full, wanted = everything(config), everything(student)

    def block(before: Block, now: Block, kept: tuple[int, ...], where: str) -> Block:
        layers = []
        for index, target in zip(kept, now.layers, strict=True):
            was = before.layers[index].blocks
            if (was is None) != (target.blocks is None):
                raise ValueError(f"{where}: one of the two has attention there and the other has not")
            blocks = None if was is None or target.blocks is None else keep(len(was), len(target.blocks), where)
            layers.append(Layer(index, blocks))
        return Block(before.index, tuple(layers))

    gone = len(full.down) - len(wanted.down)
    if gone < 0:
        raise ValueError(f"the student has {len(wanted.down)} levels, the teacher {len(full.down)}: it is no smaller")
    down, up = [], []
    for before, now in zip(full.down, wanted.down, strict=False):
        first = fewer(len(before.layers), len(now.layers), f"down_blocks.{before.index}")
        down.append(block(before, now, first, f"down_blocks.{before.index}"))
    for before, now in zip(full.up[gone:], wanted.up, strict=True):
        fewer(len(before.layers), len(now.layers), f"up_blocks.{before.index}")
        outer = (*range(len(now.layers) - 1), len(before.layers) - 1)
        up.append(block(before, now, outer, f"up_blocks.{before.index}"))
    mid: tuple[int, ...] | None = None
    if wanted.mid is not None:
        if full.mid is None:
            raise ValueError("the student has a mid block and the teacher has none: it is no smaller")
        mid = keep(len(full.mid), len(wanted.mid), "mid_block") if wanted.mid else ()
    return KeepMap(tuple(down), mid, tuple(up))


def keep(before: int, after: int, where: str = "attention") -> tuple[int, ...]:
    """Return the indices of the transformer blocks that stay."""
    if before == after:
        return tuple(range(before))
    if after > before:
        raise ValueError(f"{where}: the student has {after} transformer blocks, the teacher {before}: it is no smaller")
    if (before, after) not in KEEP:
        raise ValueError(
            f"{where}: no rule says which of {before} transformer blocks stay as {after}; "
            f"rules: {', '.join(f'{a} -> {b}' for a, b in KEEP)}"
        )
    return KEEP[before, after]


def fewer(before: int, after: int, where: str) -> tuple[int, ...]:
    """Return the first `after` of `before` layers."""
    if after > before:
        raise ValueError(f"{where}: the student has {after} layers, the teacher {before}: it is no smaller")
    return tuple(range(after))


def carve(unet: UNet2DConditionModel, keep_map: KeepMap) -> UNet2DConditionModel:
    """Return a new UNet with what the map keeps, in eval mode, on the device and in the precision of the old one.

    The weights that stay are copies.

    Raises:
        ValueError: the map does not fit the UNet, or leaves layers whose widths do not join.
    """
    with torch.device("meta"):
        student = UNet2DConditionModel(**student_config(dict(unet.config), keep_map))
    weights = carved_weights(unet.state_dict(), keep_map, {name: w.shape for name, w in student.state_dict().items()})
    student.load_state_dict(weights, assign=True)
    return student.eval()  # type: ignore[no-any-return]


def carved_weights(teacher: dict[str, Tensor], keep_map: KeepMap, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """Return copies of the teacher's tensors under the student's names."""
    weights = {}
    for name, shape in shapes.items():
        source = keep_map.teacher_name(name)
        if teacher[source].shape != shape:
            raise ValueError(
                f"the student's {name} has shape {tuple(shape)}, but {source} {tuple(teacher[source].shape)}: "
                f"a layer that joins two widths has to stay"
            )
        weights[name] = teacher[source].detach().clone()
    return weights


def parameters(unet: UNet2DConditionModel) -> int:
    """Return the number of weights."""
    return sum(weight.numel() for weight in unet.parameters())
