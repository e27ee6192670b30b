"""How much a UNet's output changes without each of its pieces, one at a time.

The measure is LAPTOP-Diff's (arXiv 2404.11098, section 3): the mean squared difference between the outputs with and
without the piece, over calibration inputs. It is nearly additive over pieces, so a sum of single measurements
stands for the effect of taking several out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ssd1b.pruning.pieces import Piece, without

Ask = Mapping[str, Any]
"""Arguments of one UNet call, return_dict False."""


@torch.no_grad()
def outputs(unet: UNet2DConditionModel, asks: Sequence[Ask]) -> list[Tensor]:
    """Return the UNet's answers, float32."""
    return [unet(**ask)[0].float() for ask in asks]


def error(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Return the mean squared difference as a share of the mean square of `theirs`.

    Raises:
        ValueError: an output is not finite.
    """
    gap = sum(float((a - b).square().mean()) for a, b in zip(ours, theirs, strict=True))
    power = sum(float(b.square().mean()) for b in theirs)
    if not (power > 0 and gap < float("inf")):
        raise ValueError(f"the outputs cannot be compared: error {gap}, mean square of the whole UNet's output {power}")
    return gap / power


def sensitivities(
    unet: UNet2DConditionModel,
    pieces: Sequence[Piece],
    asks: Sequence[Ask],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, float]:
    """Return, by the name of each piece, the error of the UNet without it, relative to its own output."""
    whole = outputs(unet, asks)
    found = {}
    for done, piece in enumerate(pieces, 1):
        with without(unet, [piece]):
            found[piece.name] = error(outputs(unet, asks), whole)
        progress(done, len(pieces))
    return found
