"""The moving average: against diffusers' and against the sum it stands for."""

import pytest
import torch
from diffusers.training_utils import EMAModel

from ssd1b.training.ema import begun, decay_at, fold_in


def weights_at(update: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(update)
    return {"a": torch.randn(3, 2, generator=generator), "b": torch.randn(4, generator=generator)}


def test_it_is_the_average_of_diffusers() -> None:
    """Which takes the first weights whole, so both begin with the same."""
    first = weights_at(0)
    parameters = [torch.nn.Parameter(weight.clone()) for weight in first.values()]
    theirs, ours = EMAModel(parameters, decay=0.9), begun(first)
    for update in range(60):
        now = weights_at(update)
        for parameter, weight in zip(parameters, now.values(), strict=True):
            parameter.data = weight
        theirs.step(parameters)
        fold_in(ours, now, decay_at(update, 0.9))
    for mean, shadow in zip(ours.values(), theirs.shadow_params, strict=True):
        assert torch.allclose(mean, shadow, atol=1e-6)


def test_it_is_a_weighted_sum_of_all_weights_so_far() -> None:
    decays = [decay_at(update, 0.95) for update in range(40)]
    average = begun(weights_at(0))
    for update, decay in enumerate(decays):
        fold_in(average, weights_at(update + 1), decay)
    shares = [torch.tensor(decays[update:]).prod() * (1 - decays[update - 1] if update else 1) for update in range(41)]
    assert float(sum(shares)) == pytest.approx(1, abs=1e-5)
    expected = sum(share * weights_at(update)["a"] for update, share in enumerate(shares))
    assert torch.allclose(average["a"], expected, atol=1e-5)


def test_the_decay_warms_up() -> None:
    assert decay_at(0, 0.9999) == 0.1
    assert decay_at(90, 0.9999) == 0.91
    assert decay_at(10**6, 0.9999) == 0.9999


def test_the_first_weights_are_copied() -> None:
    weights = weights_at(0)
    average = begun(weights)
    weights["a"].zero_()
    assert average["a"].abs().sum() > 0
