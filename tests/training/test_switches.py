"""Switches: what they make, and what they say where a machine lacks something. No GPU and no package is needed."""

import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ssd1b.training.moments import moments, restore_moments
from ssd1b.training.switches import optimizer, teacher_device

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class Bytes(torch.optim.Optimizer):
    """Keeps state of the kinds that an 8-bit Adam keeps: bytes, a table, a number of floats, and a plain counter."""

    def __init__(self, parameters: Iterable[nn.Parameter], **options: Any) -> None:
        super().__init__(parameters, options)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # noqa: ARG002  as torch declares it
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                if not state:
                    state |= {
                        "step": 0, "state1": torch.zeros(weight.shape, dtype=torch.uint8), "qmap1": torch.arange(256.0)
                    }  # fmt: skip
                state["step"] += 1
                assert type(state["step"]) is int, "the library hands it to C"
                state["state1"] += 3
                weight -= group["lr"] * state["step"] * state["state1"]


@pytest.fixture
def eight_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("bitsandbytes")
    package.__spec__ = ModuleSpec("bitsandbytes", None)
    package.optim = SimpleNamespace(AdamW8bit=Bytes)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)


def test_adamw_is_torchs() -> None:
    made = optimizer("adamw", nn.Linear(2, 2).parameters(), CPU, lr=3e-4, weight_decay=0.02)
    assert type(made) is torch.optim.AdamW
    group = made.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (3e-4, (0.9, 0.999), 1e-8, 0.02)


def test_eight_bits_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssd1b.training.switches.find_spec", lambda _name: None)
    with pytest.raises(ValueError, match="needs the package bitsandbytes: install it, or set optimizer=adamw"):
        optimizer("adamw_8bit", [], GPU, lr=1.0, weight_decay=0.0)


@pytest.mark.usefixtures("eight_bits")
def test_eight_bits_without_a_gpu() -> None:
    with pytest.raises(ValueError, match="needs a GPU, this worker has 'cpu'"):
        optimizer("adamw_8bit", [], CPU, lr=1.0, weight_decay=0.0)


@pytest.mark.usefixtures("eight_bits")
def test_eight_bit_state_is_restored_as_it_was() -> None:
    weights = []
    for stops in (False, True):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        names = [name for name, _ in model.named_parameters()]
        made = optimizer("adamw_8bit", model.parameters(), GPU, lr=1e-3, weight_decay=0.0)
        made.step()
        if stops:
            kept = moments(made, names)
            assert kept["weight/state1"].dtype == torch.uint8
            made = optimizer("adamw_8bit", model.parameters(), GPU, lr=1e-3, weight_decay=0.0)
            restore_moments(made, names, kept)
        made.step()
        weights.append(model.weight.detach().clone())
    assert torch.equal(*weights)


def test_where_the_teacher_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert teacher_device("same", GPU) == GPU
    assert teacher_device("cpu", GPU) == CPU
    assert teacher_device("next", GPU) == torch.device("cuda", 1)
    with pytest.raises(ValueError, match=r"no GPU 2 after the student's 1; .* \(gpus_per_worker=2\)"):
        teacher_device("next", torch.device("cuda", 1))
    with pytest.raises(ValueError, match="needs GPUs, this worker has 'cpu'"):
        teacher_device("next", CPU)
