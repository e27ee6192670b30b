"""AdamW's state as named tensors, so that a checkpoint holds nothing but safetensors."""

from collections.abc import Mapping

import torch
from torch import Tensor


def moments(adam: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """Return AdamW's state as named tensors."""
    state = adam.state_dict()["state"]
    return {f"{names[i]}/{key}": torch.as_tensor(value) for i, entry in state.items() for key, value in entry.items()}


def restore_moments(adam: torch.optim.Optimizer, names: list[str], tensors: Mapping[str, Tensor]) -> None:
    """Put back what `moments` returned."""
    index = {name: i for i, name in enumerate(names)}
    state: dict[int, dict[str, Tensor]] = {}
    for full, value in tensors.items():
        name, _, key = full.rpartition("/")
        state.setdefault(index[name], {})[key] = value
    adam.load_state_dict({"state": state, "param_groups": adam.state_dict()["param_groups"]})
