"""The pretraining loop: interrupted and resumed, it ends with the weights of an uninterrupted run."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ssd1b.pretraining.fit import Metrics, fit, lr_at
from ssd1b.recipes.pretrain import Optim

OPTIM = Optim(steps=12, lr=1e-2, warmup_steps=3)


class KilledError(Exception):
    """Stands for a kill."""


def run(root: Path, interrupt_at: int | None = None) -> tuple[Tensor, list[int]]:
    torch.manual_seed(1)
    module = nn.Linear(4, 1)
    seen: list[int] = []

    def loss_at(step: int) -> tuple[Tensor, Metrics]:
        if step == interrupt_at:
            raise KilledError
        seen.append(step)
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        loss = (module(x) - x.sum(1, keepdim=True)).square().mean()
        return loss, {"loss": loss.item()}

    fit(root, {"m": module}, loss_at, OPTIM, report=lambda _step, _metrics: None, every_s=0)
    return module.weight.detach().clone(), seen


def test_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole")
    with pytest.raises(KilledError):
        run(tmp_path / "broken", interrupt_at=7)
    resumed, seen = run(tmp_path / "broken")
    assert seen == [7, 8, 9, 10, 11]
    assert torch.equal(whole, resumed)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    whole, _ = run(tmp_path)
    again, seen = run(tmp_path)
    assert seen == []
    assert torch.equal(whole, again)


def test_a_gradient_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    module = nn.Linear(1, 1)

    def loss_at(_step: int) -> tuple[Tensor, Metrics]:
        return module(torch.full((1, 1), float("inf"))).sum(), {}

    with pytest.raises(ValueError, match=r"not finite at step 0: lower optim\.lr"):
        fit(tmp_path, {"m": module}, loss_at, OPTIM, report=lambda _step, _metrics: None)


def test_learning_rate_warms_up_and_decays_to_a_tenth() -> None:
    rates = [lr_at(OPTIM, step) for step in range(OPTIM.steps + 1)]
    assert rates[:3] == pytest.approx([OPTIM.lr / 3, 2 * OPTIM.lr / 3, OPTIM.lr])
    assert rates[-1] == pytest.approx(OPTIM.lr / 10)
    assert rates[3:] == sorted(rates[3:], reverse=True)
