"""The one loop under all pretraining: a loss that is a pure function of the step, AdamW, EMA, checkpoints by name."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ssd1b.recipes.pretrain import Optim
from ssd1b.training import checkpoint
from ssd1b.training.moments import moments, restore_moments

Metrics = dict[str, float]


def lr_at(optim: Optim, step: int) -> float:
    """Return the learning rate of a step, counted from 0."""
    if step < optim.warmup_steps:
        return optim.lr * (step + 1) / optim.warmup_steps
    progress = (step - optim.warmup_steps) / max(1, optim.steps - optim.warmup_steps)
    return optim.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, progress))))


def fit(
    root: Path,
    modules: Mapping[str, nn.Module],
    loss_at: Callable[[int], tuple[Tensor, Metrics]],
    optim: Optim,
    *,
    report: Callable[[int, Metrics], None],
    every_s: float = 60.0,
) -> None:
    """Train the modules for `optim.steps` and leave the moving average of their weights in them.

    loss_at(step) must depend on nothing but the step and the weights, so that a run killed at any moment and started
    again under the same root ends with the same weights. Checkpoints are written about every `every_s` seconds;
    report gets the means of the metrics since its last call, about every 10 seconds.
    """
    live = {f"{part}.{name}": p for part, module in modules.items() for name, p in module.named_parameters()}
    average = {name: p.detach().clone() for name, p in live.items()}
    adam = torch.optim.AdamW(live.values(), lr=optim.lr, weight_decay=optim.weight_decay, betas=(0.9, 0.99), fused=True)
    first = 0
    if found := checkpoint.latest(root):
        tensors, state = checkpoint.load(found)
        with torch.no_grad():
            for name, p in live.items():
                p.copy_(tensors["weights"][name])
                average[name].copy_(tensors["average"][name])
        restore_moments(adam, list(live), tensors["moments"])
        first = state["step"]

    sums: Metrics = {}
    counted, reported_at, saved_at = 0, time.monotonic(), time.monotonic()
    for step in range(first, optim.steps):
        for group in adam.param_groups:
            group["lr"] = lr_at(optim, step)
        loss, metrics = loss_at(step)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(live.values(), optim.max_grad_norm)
        if not torch.isfinite(norm):
            raise ValueError(f"the gradient is not finite at step {step}: lower optim.lr (now {optim.lr})")
        adam.step()
        adam.zero_grad(set_to_none=True)
        decay = min(optim.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), list(live.values()), 1 - decay)

        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + value
        counted += 1
        now = time.monotonic()
        done = step + 1 == optim.steps
        if now - reported_at >= 10 or done:
            means = {name: value / counted for name, value in sums.items()}
            report(step + 1, means | {"lr": lr_at(optim, step), "steps_per_s": counted / (now - reported_at)})
            sums, counted, reported_at = {}, 0, now
        if now - saved_at >= every_s or done:
            tensors = {"weights": dict(live), "average": average, "moments": moments(adam, list(live))}
            checkpoint.save(root, step + 1, tensors, {"step": step + 1})
            checkpoint.retain(root, keep=2)
            saved_at = time.monotonic()
    with torch.no_grad():
        for name, p in live.items():
            p.copy_(average[name])
