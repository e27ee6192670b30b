"""Distances between sets of pictures: equal to torchmetrics', honest about few pictures, refused across extractors."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from ssd1b.evaluation.distances import SCALE, SIGMA, Moments, cmmd, frechet, kid
from ssd1b.evaluation.extractor import Extractor, Features

D = 24
WHO = Extractor(name="toy", kind="pictures", source="here", dimension=D, sha256="0" * 64, licence="MIT")
GENERATOR = torch.Generator().manual_seed(0)
MIX = torch.randn(D, D, generator=GENERATOR)


def sample(count: int, shift: float = 0.0, seed: int = 1) -> Features:
    generator = torch.Generator().manual_seed(seed)
    return Features(extractor=WHO, values_ND=torch.randn(count, D, generator=generator) @ MIX / 3 + shift)


class Given(nn.Module):
    """Stands where torchmetrics wants a network: what it is given are features already."""

    num_features = D

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(("count", "others"), [(400, 300), (20, 300), (15, 18)])
def test_the_frechet_distance_is_torchmetrics(count: int, others: int) -> None:
    """Also where there are fewer samples than features."""
    made, real = sample(count, 0.3), sample(others, seed=2)
    theirs = FrechetInceptionDistance(feature=Given(), input_img_size=(D,))
    theirs.set_dtype(torch.float64)
    theirs.update(real.values_ND.double(), real=True)
    theirs.update(made.values_ND.double(), real=False)
    ours = frechet(Moments.of(made), Moments.of(real))
    assert ours.value == pytest.approx(theirs.compute().item(), rel=1e-6)
    assert bool(ours.warning) == (min(count, others) <= D)
    assert ours.name == "FD-toy"


@pytest.mark.parametrize(("count", "others", "subset"), [(60, 60, 60), (80, 80, 30)])
def test_the_kernel_distance_is_torchmetrics(count: int, others: int, subset: int) -> None:
    made, real = sample(count, 0.3), sample(others, seed=2)
    torch.manual_seed(1)  # theirs draws its subsets from the global generator
    theirs = KernelInceptionDistance(feature=Given(), subsets=400, subset_size=subset)
    theirs.update(real.values_ND, real=True)
    theirs.update(made.values_ND, real=False)
    ours = kid(made, real, subsets=400, subset=subset)
    same = 1e-4 if subset == count else 0.1  # subsets are drawn by unlike generators
    assert ours.value == pytest.approx(theirs.compute()[0].item(), rel=same)
    assert ours.low is not None
    assert ours.high is not None
    assert ours.low < ours.value < ours.high


def test_cmmd_is_the_papers_formula() -> None:
    """arXiv 2401.09603: exp(-|x - y|^2 / 200) of unit vectors, means over all pairs, times 1000."""
    made, real = sample(30, 0.5), sample(40, seed=2)
    x, y = (side.values_ND.double().numpy() for side in (made, real))
    x, y = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (x, y))

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (2 * SIGMA**2)).mean())

    assert cmmd(made, real).value == pytest.approx(SCALE * (k(x, x) + k(y, y) - 2 * k(x, y)), rel=1e-9)
    assert cmmd(made, made).value == pytest.approx(0, abs=1e-9)
    assert cmmd(made, real).name == "CMMD-toy"


@pytest.mark.parametrize("distance", [kid, cmmd])
def test_nineteen_intervals_in_twenty_hold_what_samples_give_on_average(distance: object) -> None:
    assert callable(distance)
    found = [distance(sample(60, 1.0, seed=1000 + i), sample(60, seed=5000 + i)) for i in range(60)]
    values = [each.value for each in found]
    assert np.mean([each.low <= np.mean(values) <= each.high for each in found]) >= 0.88
    width = np.mean([each.high - each.low for each in found])
    assert width == pytest.approx(2 * 1.96 * np.std(values), rel=0.25), "no wider than it has to be"


def test_two_samples_of_one_distribution_are_said_to_be_no_apart() -> None:
    assert "do not tell it from 0" in kid(sample(50), sample(50, seed=2)).warning
    assert not kid(sample(50, 1.0), sample(50, seed=2)).warning


def test_moments_from_a_file_are_those_of_the_samples(tmp_path: Path) -> None:
    made, real = sample(100, 0.3), sample(200, seed=2)
    path = tmp_path / "real.npz"
    values = real.values_ND.double().numpy()
    np.savez(path, mu=values.mean(0), sigma=np.cov(values, rowvar=False))
    read = Moments.read(str(path), WHO, 200)
    assert frechet(Moments.of(made), read).value == pytest.approx(frechet(Moments.of(made), Moments.of(real)).value)
    with pytest.raises(ValueError, match=r"holds moments of \(24,\) features"):
        Moments.read(str(path), dataclasses.replace(WHO, dimension=2048), 200)
    np.savez(path, mean=values)
    with pytest.raises(ValueError, match=r"lacks \['mu', 'sigma'\]"):
        Moments.read(str(path), WHO, 200)


def test_numbers_of_unlike_extractors_are_never_compared() -> None:
    other = Features(extractor=dataclasses.replace(WHO, sha256="1" * 64), values_ND=sample(30).values_ND)
    for compared in (kid, cmmd, lambda a, b: frechet(Moments.of(a), Moments.of(b))):
        with pytest.raises(ValueError, match="measure both sides with the same extractor"):
            compared(sample(30), other)


def test_where_the_weights_lay_does_not_matter() -> None:
    moved = Features(extractor=dataclasses.replace(WHO, source="elsewhere"), values_ND=sample(30).values_ND)
    assert cmmd(sample(30), moved).value == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("distance", [kid, cmmd])
def test_one_picture_is_no_distribution(distance: object) -> None:
    assert callable(distance)
    with pytest.raises(ValueError, match="1 pictures on one side have no distribution"):
        distance(sample(1), sample(9))
    with pytest.raises(ValueError, match="1 pictures have no covariance"):
        Moments.of(sample(1))
