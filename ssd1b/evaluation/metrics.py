"""What is measured of two models' pictures for the same prompts and seeds. Pure: numbers in, numbers out.

A score is a cosine between picture and prompt; chance is the same pictures' mean score for other prompts. Only what a
model has above chance can be kept or lost, so the ratio is taken of that. A paired distance means something only beside
the distance of unrelated pictures, so it is given as a share of that.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# N prompts, D features of a picture, R bootstrap draws

DRAWS = 2000
INTERVAL = (0.025, 0.975)
MOST_SHIFTS = 64
"""With how many others a picture is compared at most to know what unrelated ones are like."""


@dataclass(frozen=True)
class Estimate:
    """A mean or a ratio of means over prompts, with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    count: int
    """Prompts it is over."""

    def named(self, name: str) -> dict[str, float]:
        """Return the numbers as metrics: name, name_low, name_high."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def mean(values_N: Tensor, seed: int = 0) -> Estimate:
    """Return the mean over prompts."""
    return bootstrap(lambda rows_RN: values_N[rows_RN].mean(-1), len(values_N), seed)


def ratio(above_N: Tensor, below_N: Tensor, seed: int = 0) -> Estimate:
    """Return mean(above) / mean(below); both are drawn together, prompt by prompt.

    Where a mean below is not positive there is nothing to compare with: the value is NaN.
    """

    def of(rows_RN: Tensor) -> Tensor:
        below_R = below_N[rows_RN].mean(-1)
        return torch.where(below_R > 0, above_N[rows_RN].mean(-1) / below_R, torch.nan)

    return bootstrap(of, len(above_N), seed)


def bootstrap(statistic: Callable[[Tensor], Tensor], count: int, seed: int) -> Estimate:
    """Return a statistic of all prompts, and its interval over prompts drawn with replacement.

    statistic maps row indices (R, N) to values (R,).
    """
    generator = torch.Generator().manual_seed(seed)
    rows_RN = torch.randint(count, (DRAWS, count), generator=generator)
    low, high = torch.quantile(statistic(rows_RN).double(), torch.tensor(INTERVAL, dtype=torch.float64)).tolist()
    return Estimate(float(statistic(torch.arange(count)[None])[0]), low, high, count)


def above_chance(cosine_NN: Tensor) -> Tensor:
    """Return each picture's score for its own prompt, less its mean score for the others, shape (N,).

    cosine_NN holds pictures in rows and prompts in columns. At least two prompts.
    """
    count = len(cosine_NN)
    own_N = cosine_NN.diagonal()
    return own_N - (cosine_NN.sum(1) - own_N) / (count - 1)


def feature_distance(a_ND: Tensor, b_ND: Tensor) -> Tensor:
    """Return one less the cosine between features, pair by pair, shape (N,)."""
    return 1 - F.cosine_similarity(a_ND, b_ND, dim=-1)


def pixel_distance(a_NHWC: Tensor, b_NHWC: Tensor) -> Tensor:
    """Return the root mean square difference of uint8 pictures, in levels of 0 to 1, shape (N,)."""
    return ((a_NHWC.float() - b_NHWC.float()) / 255).square().mean((1, 2, 3)).sqrt()


def unrelated(distance: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """Return each a's mean distance to every b but its own, or to 64 of them where there are more, shape (N,)."""
    count = len(a)
    apart = max((count - 1) // MOST_SHIFTS, 1)
    return torch.stack([distance(a, b.roll(shift, 0)) for shift in range(1, count, apart)]).mean(0)
