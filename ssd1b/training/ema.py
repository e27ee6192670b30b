"""The exponential moving average of a student's weights, whose samples are better than the last weights'.

BK-SDM trains its students with one (arXiv 2305.15798). The decay warms up with the number of updates, as in
TensorFlow's ExponentialMovingAverage and diffusers' EMAModel, so that the first weights do not linger.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def decay_at(update: int, decay: float) -> float:
    """Return the decay of an update, counted from 0: min(decay, (1 + n) / (10 + n))."""
    return min(decay, (1 + update) / (10 + update))


@torch.no_grad()
def fold_in(average: Mapping[str, Tensor], weights: Mapping[str, Tensor], decay: float) -> None:
    """Move the average in place: average = decay * average + (1 - decay) * weights."""
    assert average.keys() == weights.keys()
    torch._foreach_lerp_(list(average.values()), [weights[name].detach() for name in average], 1 - decay)


def begun(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the average of these weights alone: copies."""
    return {name: weight.detach().clone() for name, weight in weights.items()}
