"""Switches of the trainer that trade memory for time, and the clear errors where a machine cannot follow them."""

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Literal

import torch
from torch import nn

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""AdamW's, as in Segmind's distill_sdxl.py."""
COMPILER = "inductor"
"""torch.compile's backend."""


def dtype(precision: Literal["fp32", "bf16"]) -> torch.dtype:
    """Return what the passes compute in. The student's weights and all sums of losses are float32 either way."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def optimizer(
    kind: Literal["adamw", "adamw_8bit"],
    parameters: Iterable[nn.Parameter],
    device: torch.device,
    *,
    lr: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """Return AdamW over the parameters (arXiv 1711.05101), with its state in float32 or in 8 bits (arXiv 2110.02861).

    Raises:
        ValueError: 8 bits without a GPU or without the package that does it.
    """
    if kind == "adamw":
        # one kernel over all parameters: by default a CPU takes them one at a time
        return torch.optim.AdamW(parameters, lr=lr, betas=BETAS, eps=EPSILON, weight_decay=weight_decay, fused=True)
    if find_spec("bitsandbytes") is None:
        raise ValueError("optimizer=adamw_8bit needs the package bitsandbytes: install it, or set optimizer=adamw")
    if device.type != "cuda":
        raise ValueError(f"optimizer=adamw_8bit needs a GPU, this worker has {device.type!r}: set optimizer=adamw")
    made: torch.optim.Optimizer = import_module("bitsandbytes").optim.AdamW8bit(
        parameters, lr=lr, betas=BETAS, eps=EPSILON, weight_decay=weight_decay
    )
    return made


def teacher_device(where: Literal["same", "next", "cpu"], device: torch.device) -> torch.device:
    """Return where the teacher of a student on `device` lies.

    Raises:
        ValueError: there is no GPU after the student's.
    """
    if where == "same":
        return device
    if where == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise ValueError(f"teacher_device=next needs GPUs, this worker has {device.type!r}: set teacher_device=same")
    following = (device.index or 0) + 1
    if following >= torch.cuda.device_count():
        raise ValueError(
            f"teacher_device=next: there is no GPU {following} after the student's {following - 1}; give each worker "
            f"two (gpus_per_worker=2), or set teacher_device=same"
        )
    return torch.device("cuda", following)
