"""Measure UNets without memory for their weights: parameters and blocks, counted on the meta device."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D

from ssd1b.command import show
from ssd1b.family.table import new_unet
from ssd1b.recipes.describe import Describe


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What a UNet is made of."""

    parameters: int
    transformer_blocks: int
    resnets: int


def measure(unet: UNet2DConditionModel) -> Measure:
    kinds = [type(module) for module in unet.modules()]
    return Measure(
        parameters=sum(parameter.numel() for parameter in unet.parameters()),
        transformer_blocks=kinds.count(BasicTransformerBlock),
        resnets=kinds.count(ResnetBlock2D),
    )


def measure_member(name: str) -> Measure:
    """Measure a member of the family by name.

    Raises:
        ValueError: no such member.
    """
    with torch.device("meta"):
        return measure(new_unet(name))


def describe(config: Describe) -> dict[str, Any]:
    """Print a table of the members and return it."""
    measures = {name: measure_member(name) for name in config.members}
    for line in table(measures.items()):
        show(line)
    return {"members": {name: asdict(each) for name, each in measures.items()}}


def table(measures: Iterable[tuple[str, Measure]]) -> list[str]:
    """Return the lines of a table: one member a line, numbers aligned."""
    header = f"{'member':<18} {'parameters':>14} {'transformer blocks':>19} {'resnets':>8}"
    rows = [f"{name:<18} {m.parameters:>14,} {m.transformer_blocks:>19} {m.resnets:>8}" for name, m in measures]
    return [header, "-" * len(header), *rows]
