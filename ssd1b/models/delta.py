"""Experts as files: the difference of two UNets at a low rank, a small fraction of a whole one's size."""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ssd1b.models.weights import Weights


@torch.no_grad()
def merge_delta(unet: UNet2DConditionModel, path: Path) -> None:
    """Add a low-rank delta to the weights: W += up @ down for each tensor it names, shapes as W flattened to 2-D.

    Raises:
        ValueError: the file is not whole, or it names a weight the UNet lacks, or has of another shape.
    """
    weights = dict(unet.named_parameters())
    file = Weights.open(path)
    for name in sorted({key.removesuffix(".down").removesuffix(".up") for key in file}):
        weight = weights.get(name)
        if weight is None:
            raise ValueError(f"{path} changes {name}, which this UNet does not have")
        if name in file:
            weight += file[name].to(weight.dtype)
            continue
        up, down = file[f"{name}.up"].float(), file[f"{name}.down"].float()
        if (up.shape[0], down.shape[1]) != flat(weight).shape:
            raise ValueError(f"{path}: {name} has shape {tuple(weight.shape)}, the delta does not fit it")
        weight += (up @ down).reshape(weight.shape).to(weight.dtype)


def low_rank_delta(base: UNet2DConditionModel, expert: UNet2DConditionModel, rank: int) -> dict[str, Tensor]:
    """Return expert minus base in fp16: matrices and kernels as a rank-`rank` product (SVD), vectors in full."""
    delta: dict[str, Tensor] = {}
    after = dict(expert.named_parameters())
    for name, before in base.named_parameters():
        change = (after[name] - before).detach()
        if change.ndim < 2:
            delta[name] = change.half()
            continue
        u, s, v = torch.linalg.svd(flat(change), full_matrices=False)
        r = min(rank, len(s))
        delta[f"{name}.up"] = (u[:, :r] * s[:r].sqrt()).half().contiguous()
        delta[f"{name}.down"] = (s[:r].sqrt()[:, None] * v[:r]).half().contiguous()
    return delta


def flat(weight: Tensor) -> Tensor:
    """View a matrix or convolution kernel as (out, everything else)."""
    return weight.reshape(weight.shape[0], -1)
