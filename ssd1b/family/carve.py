"""Carving: a student is its teacher minus blocks, weights and all.

SSD-1B keeps 34 of SDXL's 70 transformer blocks and 16 of its 17 resnets. Segmind never published which; furusu found
them by cosine similarity (SSD-1B-anime model card): of ten blocks the 1st, 2nd, 3rd and 7th, of two the first, and
the third attention of the first up block whole. The mid block keeps its first resnet only.
"""

import re
from collections.abc import Iterable
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from ssd1b.family.table import SSD1B_CHANGES

PARTS = ("mid", "down", "up")
KEEP: dict[tuple[int, int], tuple[int, ...]] = {(10, 4): (0, 1, 2, 6), (2, 1): (0,)}
"""Which blocks stay where so many become so few."""

Depths = list[list[int]]
BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)\.transformer_blocks\.(\d+)\.(.*)")


def carve(unet: UNet2DConditionModel, parts: Iterable[str]) -> UNet2DConditionModel:
    """Return a new UNet without the blocks that SSD-1B lacks in the parts ("mid", "down", "up"), in eval mode.

    The weights that stay are copies. Parts that are carved already stay as they are.

    Raises:
        ValueError: an unknown part; "down" before "mid"; or a teacher of another topology than SDXL's.
    """
    parts = tuple(parts)
    config = carved_config(dict(unet.config), parts)
    down, up = depths(dict(unet.config))
    kept_down, kept_up = depths(config)
    with torch.device("meta"):
        student = UNet2DConditionModel(**config)
    before = unet.state_dict()
    weights = {}
    for name in student.state_dict():
        source = name
        if match := BLOCK.fullmatch(name):
            path, block, attention, slot, rest = match.groups()
            old, new = (down, kept_down) if path == "down" else (up, kept_up)
            i, j = int(block), int(attention)
            kept = keep(old[i][j], new[i][j])[int(slot)]
            source = f"{path}_blocks.{i}.attentions.{j}.transformer_blocks.{kept}.{rest}"
        weights[name] = before[source].detach().clone()
    student.load_state_dict(weights, assign=True)
    return student.eval()  # type: ignore[no-any-return]


def carved_config(config: dict[str, Any], parts: Iterable[str]) -> dict[str, Any]:
    """Return the diffusers config of a UNet with the parts carved."""
    # diffusers notes in private keys which values were defaults, and would put those back
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"no part {part!r} to carve: choose from {', '.join(PARTS)}")
        if part == "mid":
            config["mid_block_type"] = SSD1B_CHANGES["mid_block_type"]
            continue
        if config["mid_block_type"] != SSD1B_CHANGES["mid_block_type"]:
            # diffusers builds a mid block with attention as deep as the last down block: it cannot keep another depth
            raise ValueError(f"carve 'mid' before {part!r}: the depth of a mid block with attention ties the others")
        down, up = depths(config)
        wanted = SSD1B_CHANGES
        nested = wanted["transformer_layers_per_block"] if part == "down" else [[1], *down[1:]]
        reverse = wanted["reverse_transformer_layers_per_block"] if part == "up" else [*up[:-1], 1]
        config["transformer_layers_per_block"] = nested
        config["reverse_transformer_layers_per_block"] = reverse
    return config


def depths(config: dict[str, Any]) -> tuple[Depths, Depths]:
    """Return how many transformer blocks each attention has: [down block][attention], [up block][attention].

    Blocks without attention count one block each that is not there, as diffusers' configs do.
    """
    layers, reverse = config["transformer_layers_per_block"], config.get("reverse_transformer_layers_per_block")
    per_block = config["layers_per_block"]
    if len(layers) != 3 or not isinstance(per_block, int):
        raise ValueError(
            f"a UNet of transformer_layers_per_block={layers} is not of SDXL's topology: it cannot be carved"
        )

    def spread(depth: Any, count: int) -> list[int]:
        return [depth] * count if isinstance(depth, int) else list(depth)

    down = [spread(depth, per_block) for depth in layers]
    up = [spread(depth, per_block + 1) for depth in (reverse or list(reversed(layers)))]
    return down, up


def keep(before: int, after: int) -> tuple[int, ...]:
    """Return the indices of the blocks that stay."""
    if before == after:
        return tuple(range(before))
    if (before, after) not in KEEP:
        raise ValueError(f"no rule says which of {before} transformer blocks stay as {after}: rules {sorted(KEEP)}")
    return KEEP[before, after]


def parameters(unet: UNet2DConditionModel) -> int:
    """Return the number of weights."""
    return sum(weight.numel() for weight in unet.parameters())
