"""Two real workers, data-parallel over processes: the same student as one alone, with the switches and the judge on."""

import dataclasses
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.distributed
from torch import nn

from ssd1b.elastic.feed import Latents
from ssd1b.recipes.distill import Distillation
from ssd1b.training import pupil
from ssd1b.training.conditioning import Conditioning
from ssd1b.training.gradients import summed
from ssd1b.training.losses import over_batch, total
from ssd1b.training.validation import Validation, held_out
from tests.training.alone import Alone, sd_recipe

CPU = torch.device("cpu")
LRS = (2e-4, 2e-4, 3e-2, 3e-2)
"""The last two spoil the student, so that its second checkpoint is the best."""


def work(rank: int, world_size: int, folder: Path, config: Distillation) -> None:
    """Train the first stage as the loop does and keep the losses and the weights."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    latents = Latents.open(folder / "latents")
    alone = object.__new__(Alone)
    alone.latents, alone.order = latents, latents.order(global_batch=4, slices=2, seed=3)
    conditioning = Conditioning(config.base, CPU)
    student = pupil.start(config, folder, 0, CPU)
    gradients = summed(config.gradients, student, world_size, nn.parallel.DistributedDataParallel)
    validation = Validation(held_out(folder / "latents", 3), conditioning, folder, rank, world_size)
    losses = []
    for step, lr in enumerate(LRS):
        mine = range(2 * step, 2 * step + 2)[rank::world_size]
        for slot in mine:
            batch = conditioning.batch(alone.rows(slot), seed=config.seed)
            with gradients.slice(last=slot == mine[-1]):
                rows_B = total(student.errors(batch, conditioning.alphas_cumprod), student.stage.weights)
                (over_batch(rows_B, batch.real_B, 4) * gradients.scale).backward()  # type: ignore[no-untyped-call]
        student.update(lr)
        losses.append(validation.judge(student, step + 1))
    weights = {name: weight.detach() for name, weight in student.parameters.items()}
    torch.save((losses, weights), folder / f"{world_size}-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("gradients", ["in_order", "reduced"])
def test_two_workers_end_where_one_does(tmp_path: Path, gradients: Literal["in_order", "reduced"]) -> None:
    base = tmp_path / "base"
    made = Alone(base, sd_recipe(base)).config
    config = dataclasses.replace(made, features="self_attention", activation_checkpointing=True, ema_decay=0.9,
                                 gradients=gradients)  # fmt: skip
    found = []
    for world_size in (1, 2):
        folder = tmp_path / str(world_size)
        folder.mkdir()
        (folder / "latents").symlink_to(base / "latents")
        torch.multiprocessing.spawn(work, (world_size, folder, config), nprocs=world_size)
        found += [torch.load(folder / f"{world_size}-{rank}.pt") for rank in range(world_size)]
    (one, ours), (two, first), (also_two, second) = found
    assert one.index(min(one)) == 1, "the last checkpoint is not the best"
    assert two == also_two
    assert two == (one if gradients == "in_order" else pytest.approx(one, rel=1e-4))
    assert all(torch.equal(first[name], second[name]) for name in first), "every worker has the best student"
    assert all(torch.allclose(ours[name], first[name], atol=1e-5) for name in ours)
    assert gradients == "reduced" or all(torch.equal(ours[name], first[name]) for name in ours)
