"""How far two sets of pictures are apart, as distributions of features: Frechet distance, KID and CMMD.

Pure functions of features. What they are called depends on whose features they are: FID is the Frechet distance in the
2015 Inception's features and nothing else; in those of EfficientNet-Lite0 it is FD-efflite0.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssd1b.evaluation.extractor import Extractor, Features, refuse_unlike

# N M samples of the two sides, D features, K rows of a covariance's root

Z_95 = 1.96
SIGMA, SCALE = 10.0, 1000.0
"""CMMD's bandwidth and what its values are multiplied by (arXiv 2401.09603, section 4.1)."""
SUBSETS, SUBSET = 100, 1000
"""KID's (arXiv 1801.01401): how many subsets are drawn, and how large they are where there are that many pictures."""


@dataclass(frozen=True, kw_only=True)
class Distance:
    """A distance between two sets of pictures."""

    name: str
    value: float
    low: float | None
    high: float | None
    """Ends of the 95 % interval: over subsets for KID, by the jackknife for CMMD; None for Frechet distances, whose
    value itself falls with the number of pictures."""
    pictures: int
    references: int
    extractor: Extractor
    warning: str = ""
    """Why not to trust it, where there is a reason."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Mean and covariance of features, which is all that a Frechet distance asks for."""

    extractor: Extractor
    count: int
    mean_D: Tensor
    root_KD: Tensor
    """A root of the covariance: root' root is the covariance; as many rows as samples, or D."""

    @staticmethod
    def of(features: Features) -> "Moments":
        """Return the moments of samples, with the unbiased covariance (N - 1).

        Raises:
            ValueError: fewer than two samples.
        """
        if len(features) < 2:
            raise ValueError(f"{len(features)} pictures have no covariance: give at least 2")
        values_ND = features.values_ND.double()
        mean_D = values_ND.mean(0)
        root_ND = (values_ND - mean_D) / math.sqrt(len(features) - 1)
        # the samples themselves are a root, and stay the cheaper one while there are fewer of them than features
        root_KD = root_ND if len(root_ND) <= len(mean_D) else torch.linalg.qr(root_ND, mode="r").R
        return Moments(extractor=features.extractor, count=len(features), mean_D=mean_D, root_KD=root_KD)

    @staticmethod
    def read(path: str, extractor: Extractor, count: int) -> "Moments":
        """Read a .npz file with "mu" and "sigma", as pytorch-fid and MLPerf publish statistics of real pictures.

        count: how many pictures they are of, which such files do not say.

        Raises:
            ValueError: the file holds something else, or moments of another dimension than the extractor's.
        """
        with np.load(path) as held:
            if missing := {"mu", "sigma"} - set(held.files):
                raise ValueError(f"{path} lacks {sorted(missing)}: give statistics as pytorch-fid saves them")
            mean_D, covariance_DD = (torch.from_numpy(held[name]).double() for name in ("mu", "sigma"))
        if mean_D.shape != (extractor.dimension,) or covariance_DD.shape != (extractor.dimension,) * 2:
            raise ValueError(f"{path} holds moments of {tuple(mean_D.shape)} features, {extractor} has others")
        values_D, vectors_DD = torch.linalg.eigh(covariance_DD)
        root_DD = values_D.clamp(min=0).sqrt()[:, None] * vectors_DD.T
        return Moments(extractor=extractor, count=count, mean_D=mean_D, root_KD=root_DD)


def frechet(made: Moments, real: Moments) -> Distance:
    """Return the squared Frechet distance of two Gaussians with these moments (arXiv 1706.08500, equation 6).

    The trace of (C1 C2)^(1/2) is the sum of the singular values of R1 R2', where R' R = C: no square root of a matrix
    that is nearly singular has to be taken.

    Raises:
        ValueError: moments of unlike extractors.
    """
    refuse_unlike(made.extractor, real.extractor)
    crossed = torch.linalg.svdvals(made.root_KD @ real.root_KD.T).sum()
    spread = made.root_KD.square().sum() + real.root_KD.square().sum()
    value = (made.mean_D - real.mean_D).square().sum() + spread - 2 * crossed
    fewest, dimension = min(made.count, real.count), made.extractor.dimension
    warning = (
        f"{fewest} pictures leave the covariance of {dimension} features rank-deficient, so that the distance depends "
        f"on their number more than on the model: compare at equal numbers only, and use at least {dimension + 1}"
        if fewest <= dimension
        else ""
    )
    name = "FID" if made.extractor.name == "inception" else f"FD-{made.extractor.name}"
    return Distance(
        name=name, value=float(value), low=None, high=None, pictures=made.count, references=real.count,
        extractor=made.extractor, warning=warning,
    )  # fmt: skip


def kid(made: Features, real: Features, seed: int = 0, subsets: int = SUBSETS, subset: int = SUBSET) -> Distance:
    """Return the kernel distance: the unbiased squared MMD under (x.y / D + 1)^3, averaged over random subsets.

    arXiv 1801.01401, section 4. The interval is that of one subset's value; where all pictures fit into one subset
    there is nothing to average, and the jackknife's takes its place.

    Raises:
        ValueError: features of unlike extractors, or fewer than two samples on a side.
    """
    made_ND, real_MD = both(made, real)
    fits = min(len(made_ND), len(real_MD))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    if fits <= subset:
        value, error = mmd(kernel(made_ND, made_ND), kernel(real_MD, real_MD), kernel(made_ND, real_MD))
    else:
        generator = torch.Generator().manual_seed(seed)
        found = []
        for _ in range(subsets):
            a = made_ND[torch.randperm(len(made_ND), generator=generator)[:subset]]
            b = real_MD[torch.randperm(len(real_MD), generator=generator)[:subset]]
            found.append(mmd(kernel(a, a), kernel(b, b), kernel(a, b))[0])
        value, error = float(np.mean(found)), float(np.std(found))
    name = "KID" if made.extractor.name == "inception" else f"KID-{made.extractor.name}"
    return distance(name, value, error, made, real)


def cmmd(made: Features, real: Features) -> Distance:
    """Return 1000 times the squared MMD of unit features under a Gaussian kernel with sigma 10 (arXiv 2401.09603).

    As in the paper's code, which keeps a sample's similarity to itself, so that a set is at 0 from itself. It is
    called CMMD where the features are a CLIP's.

    Raises:
        ValueError: features of unlike extractors, or fewer than two samples on a side.
    """
    made_ND, real_MD = (F.normalize(side, dim=-1) for side in both(made, real))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp((2 * a @ b.T - 2) / (2 * SIGMA**2))

    value, error = mmd(kernel(made_ND, made_ND), kernel(real_MD, real_MD), kernel(made_ND, real_MD), own=True)
    name = "CMMD" if made.extractor.name == "clip" else f"CMMD-{made.extractor.name}"
    return distance(name, SCALE * value, SCALE * error, made, real)


def both(made: Features, real: Features) -> tuple[Tensor, Tensor]:
    """Return the samples of two sides that may be compared, in float64."""
    refuse_unlike(made.extractor, real.extractor)
    if (fewest := min(len(made), len(real))) < 2:
        raise ValueError(f"{fewest} pictures on one side have no distribution: give at least 2")
    return made.values_ND.double(), real.values_ND.double()


def mmd(made_NN: Tensor, real_MM: Tensor, crossed_NM: Tensor, own: bool = False) -> tuple[float, float]:
    """Return the squared maximum mean discrepancy of kernel values, and its standard error by the jackknife.

    own: whether a sample's kernel with itself counts, which biases the value upwards.
    """

    def within(kernel: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean over pairs, and it again without each sample in turn."""
        count, diagonal = len(kernel), kernel.diagonal()
        kept = kernel if own else kernel - torch.diag(diagonal)
        total, rows = kept.sum(), kept.sum(1)
        pairs, fewer = (count**2, (count - 1) ** 2) if own else (count * (count - 1), (count - 1) * (count - 2))
        without = (total - 2 * rows + kept.diagonal()) / max(fewer, 1)
        return total / pairs, without

    made, made_without_N = within(made_NN)
    real, real_without_M = within(real_MM)
    crossed, (n, m) = crossed_NM.mean(), crossed_NM.shape
    value = made + real - 2 * crossed
    without_N = made_without_N + real - 2 * (crossed * n - crossed_NM.mean(1)) / (n - 1)
    without_M = made + real_without_M - 2 * (crossed * m - crossed_NM.mean(0)) / (m - 1)
    variance = sum((len(each) - 1) * each.var(correction=0) for each in (without_N, without_M))
    return float(value), math.sqrt(float(variance))


def distance(name: str, value: float, error: float, made: Features, real: Features) -> Distance:
    """Return a kernel distance with its interval, and say where that holds nothing."""
    low, high = value - Z_95 * error, value + Z_95 * error
    warning = f"{len(made)} and {len(real)} pictures do not tell it from 0" if low <= 0 else ""
    return Distance(
        name=name, value=value, low=low, high=high, pictures=len(made), references=len(real),
        extractor=made.extractor, warning=warning,
    )  # fmt: skip
