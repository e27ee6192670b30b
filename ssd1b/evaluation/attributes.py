"""Attributes that pixels show: the colour around the object, which a prompt may name and no other word may touch."""

import re

import torch
from torch import Tensor

from ssd1b.recipes.evaluate import Attribute

# N pictures, H W pixels, V values of an attribute, 3 colour channels in levels of 0 to 1 (sRGB)

BORDER = 0.06
"""Width of the frame that counts as background, as a share of the side."""
MIDDLE = 0.5
"""Side of the square in the middle that counts as object, as a share of the side."""


def asked(prompt: str, attribute: Attribute) -> str:
    """Return the value that a prompt asks for, or the default where it says nothing."""
    match = re.search(attribute.pattern, prompt)
    return match[1] if match and match[1] in attribute.values else attribute.default


def colours(attribute: Attribute) -> Tensor:
    """Return the values' colours in their order, shape (V, 3)."""
    rows = [[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in attribute.values.values()]
    return torch.tensor(rows)


def border(pictures_NHWC: Tensor) -> Tensor:
    """Return the median colour of each uint8 picture's frame, shape (N, 3): what reaches into it is outvoted."""
    height, width = pictures_NHWC.shape[1:3]
    wide = max(round(BORDER * min(height, width)), 1)
    frame_HW = torch.ones(height, width, dtype=torch.bool)
    frame_HW[wide:-wide, wide:-wide] = False
    return pictures_NHWC[:, frame_HW].float().median(1).values / 255


def middle(pictures_NHWC: Tensor) -> Tensor:
    """Return the mean colour of each uint8 picture's middle, shape (N, 3)."""
    height, width = pictures_NHWC.shape[1:3]
    down, right = round(height * (1 - MIDDLE) / 2), round(width * (1 - MIDDLE) / 2)
    return pictures_NHWC[:, down : height - down, right : width - right].float().mean((1, 2)) / 255


def shown(border_N3: Tensor, attribute: Attribute) -> list[str]:
    """Return the value whose colour is nearest to each border's."""
    names = list(attribute.values)
    return [names[i] for i in torch.cdist(border_N3, colours(attribute)).argmin(1).tolist()]


def apart(one_N3: Tensor, other_N3: Tensor) -> Tensor:
    """Return how far colours are apart, root mean square over the channels, in levels of 0 to 1, shape (N,)."""
    return (one_N3 - other_N3).square().mean(-1).sqrt()
