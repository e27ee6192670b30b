"""An optimizer's state as named tensors, so that a checkpoint holds nothing but safetensors.

AdamW's in float32 and in 8 bits: the latter keeps its moments as bytes with tables to read them by, and counts steps
with a plain whole number, which is restored as one.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def moments(adam: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """Return an optimizer's state as named tensors."""
    state = adam.state_dict()["state"]
    return {f"{names[i]}/{key}": torch.as_tensor(value) for i, entry in state.items() for key, value in entry.items()}


def restore_moments(adam: torch.optim.Optimizer, names: list[str], tensors: Mapping[str, Tensor]) -> None:
    """Put back what `moments` returned."""
    index = {name: i for i, name in enumerate(names)}
    state: dict[int, dict[str, Tensor | int]] = {}
    for full, value in tensors.items():
        name, _, key = full.rpartition("/")
        whole_number = value.ndim == 0 and not value.is_floating_point()
        state.setdefault(index[name], {})[key] = int(value) if whole_number else value
    adam.load_state_dict({"state": state, "param_groups": adam.state_dict()["param_groups"]})
