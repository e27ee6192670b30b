"""The sum of a step's gradients: the same bits at any number of workers, and clearly not so by all-reduce."""

import dataclasses
import multiprocessing
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.distributed
from torch import nn

from ssd1b.elastic.slices import slot_of, slots_per_step
from ssd1b.training.gradients import InOrder, Reduced, summed

WORLDS = (1, 2, 3, 4)
STEPS = 3
Kind = Literal["in_order", "reduced"]
KINDS: tuple[Kind, ...] = ("in_order", "reduced")
SLICES = (5, 6)
"""5 leaves null slices at every number of workers but 1."""


@dataclasses.dataclass
class Student:
    """As much of a pupil as a sum needs."""

    student: nn.Module
    module: nn.Module

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.student.named_parameters())


def model() -> nn.Module:
    """Return layers whose numbers of weights no number of workers divides, one of which is used twice."""
    torch.manual_seed(0)
    shared = nn.Linear(7, 7)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), shared, nn.Tanh(), shared, nn.Linear(7, 3))


def trained(how: Kind, slices: int, world: int, rank: int) -> dict[str, torch.Tensor]:
    """Train as the loop does, on slices that depend on their number alone; return gradients and weights."""
    made = model()
    student: Any = Student(made, made)
    gradients = summed(how, student, world, nn.parallel.DistributedDataParallel)
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
    found = {}
    turns = slots_per_step(slices, world) // world
    for step in range(STEPS):
        for turn in range(turns):
            slot = slot_of(step, turn, rank, slices, world) - step * slots_per_step(slices, world)
            draw = torch.Generator().manual_seed(100 * step + slot)
            rows, real = torch.randn(4, 5, generator=draw), float(slot < slices)
            with gradients.slice(last=turn + 1 == turns):
                loss = student.module(rows).square().sum() * real / slices
                (loss * gradients.scale).backward()
        found |= {f"{step}.{name}": weight.grad.clone() for name, weight in made.named_parameters()}
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return found | {name: weight.detach() for name, weight in made.named_parameters()}


def work(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/{world}", rank=rank, world_size=world)
    found = {(how, slices): trained(how, slices, world, rank) for how in KINDS for slices in SLICES}
    torch.save(found, folder / f"{world}-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], dict[Any, dict[str, torch.Tensor]]]:
    """What every worker of every group ended with, by number of workers and rank."""
    folder = tmp_path_factory.mktemp("gradients")
    multiprocessing.set_forkserver_preload([InOrder.__module__])  # ten processes, one import of torch
    for world in WORLDS:
        torch.multiprocessing.start_processes(work, (world, folder), nprocs=world, start_method="forkserver")
    return {(world, rank): torch.load(folder / f"{world}-{rank}.pt") for world in WORLDS for rank in range(world)}


@pytest.mark.parametrize("slices", SLICES)
def test_in_order_every_worker_of_every_group_has_the_same_bits(found: Any, slices: int) -> None:
    expected = found[1, 0]["in_order", slices]
    for of_worker in found.values():
        ours = of_worker["in_order", slices]
        assert ours.keys() == expected.keys()
        assert all(torch.equal(ours[name], expected[name]) for name in expected)


def test_it_is_what_autograd_adds_up(found: Any) -> None:
    """One worker's sum is a plain training's: nothing is lost, nothing comes twice."""
    made = model()
    torch.manual_seed(0)
    for slot in range(6):
        rows = torch.randn(4, 5, generator=torch.Generator().manual_seed(slot))
        (made(rows).square().sum() / 6).backward()
    for name, weight in made.named_parameters():
        assert torch.equal(weight.grad, found[1, 0]["in_order", 6][f"0.{name}"])


def test_reduced_agrees_but_not_to_the_last_bit(found: Any) -> None:
    """If it did, adding in order would be for nothing, or the test blind."""
    expected = found[1, 0]["in_order", 6]
    unlike = 0
    for of_worker in found.values():
        ours = of_worker["reduced", 6]
        assert all(torch.allclose(ours[f"0.{name}"], expected[f"0.{name}"], rtol=1e-4, atol=1e-6)
                   for name in dict(model().named_parameters()))  # fmt: skip
        unlike += any(not torch.equal(ours[name], expected[name]) for name in expected)
    assert unlike


def test_the_recipe_chooses() -> None:
    made = model()
    student: Any = Student(made, made)
    assert isinstance(summed("in_order", student, 1, nn.Identity), InOrder)
    wrapped = summed("reduced", student, 3, lambda module: nn.Sequential(module))
    assert isinstance(wrapped, Reduced)
    assert wrapped.scale == 3
    assert student.module is wrapped.module
    assert student.module is not made
