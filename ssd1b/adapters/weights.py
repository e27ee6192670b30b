"""The tensors of one layer in an adapter's file, as A and B."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ssd1b.adapters.adapter import LayerShape

# R rank, I and O widths of a layer, Y X positions of a kernel

Keys = Mapping[str, str]
"""Role ("down", "up", "alpha", "lora_mid") -> key in the file."""


def unfit(keys: Keys, tensors: Mapping[str, Tensor], shape: LayerShape) -> str | None:
    """Return why the tensors of a layer cannot be used, or None."""
    if unknown := sorted(set(keys) - {"down", "up", "alpha", "lora_mid"}):
        kind = "DoRA" if {"dora_scale", "lora_magnitude_vector"} & set(unknown) else "LyCORIS"
        return f"belong to a {kind} layer, which is not a plain LoRA"
    if not {"down", "up"} <= set(keys):
        return "lack the other half of their pair"
    down, up = tensors[keys["down"]], tensors[keys["up"]]
    if "lora_mid" in keys:
        mid = tensors[keys["lora_mid"]]
        if mid.dim() != 4 or mid.shape[1] != down.shape[0]:
            return "have a middle that does not fit their pair"
        down = unfolded(down, mid)
    kernel = down.shape[2:]
    if any(side != 1 for side in up.shape[2:]) or (not shape.kernel and any(side != 1 for side in kernel)):
        return "are a convolution's"
    of_kernel = len(kernel) == 0 or tuple(kernel) == (max(1, shape.kernel),) * 2
    if not of_kernel or (down.flatten(1).shape[1], up.shape[0]) != (shape.fan_in, shape.outside):
        return "have another shape than this model's layer"
    if down.shape[0] != up.shape[1]:
        return "have another shape than this model's layer"
    return None


def factors(keys: Keys, tensors: Mapping[str, Tensor], scale: float) -> tuple[Tensor, Tensor]:
    """Return A of (in, r) and B of (r, out), the scale in B."""
    down, up = tensors[keys["down"]], tensors[keys["up"]]
    if "lora_mid" in keys:
        down = unfolded(down, tensors[keys["lora_mid"]])
    return down.flatten(1).T.contiguous(), (up.flatten(1) * scale).T.contiguous()


def unfolded(down: Tensor, mid_RSYX: Tensor) -> Tensor:
    """Return the one convolution that a 1x1 and one between R and R channels make (LyCORIS' LoCon, `lora_mid`)."""
    return torch.einsum("rsyx,si->riyx", mid_RSYX, down.flatten(1))
