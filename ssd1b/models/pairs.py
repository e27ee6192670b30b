"""Two names for the same weight. One list of pairs serves both directions, so a round trip cannot lose anything.

"Ours" are the names in diffusers and transformers, "theirs" those of another layout.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor

from ssd1b.models.header import Shape

Form = Literal["same", "stacked", "transposed", "kernel"]


@dataclass(frozen=True)
class Pair:
    """One tensor of theirs and the one of ours, or the several that it stacks along its first axis."""

    ours: tuple[str, ...]
    theirs: str
    form: Form = "same"
    """How theirs is stored: as ours, ours stacked, ours transposed, or our matrix as a kernel of 1 x 1."""


def renamed(name: str, modules: Mapping[str, str]) -> str | None:
    """Return the name with its longest leading path that is among the modules replaced; None if there is none."""
    head = name
    while head not in modules:
        head = head.rpartition(".")[0]
        if not head:
            return None
    return modules[head] + name[len(head) :]


def pairs_of(names: Iterable[str], modules: Mapping[str, str], kernels: Iterable[str] = ()) -> list[Pair]:
    """Return the pairs of our names by the paths of modules; weights of the modules in kernels are kernels there.

    Raises:
        ValueError: a name that lies in none of the modules.
    """
    kernels = {f"{module}.weight" for module in kernels}
    pairs = []
    for name in names:
        theirs = renamed(name, modules)
        if theirs is None:
            raise ValueError(f"{name} has no name in the other layout: the family's models do not have it")
        pairs.append(Pair((name,), theirs, "kernel" if name in kernels else "same"))
    return pairs


def identity(names: Iterable[str]) -> list[Pair]:
    """Return the pairs of a layout that is ours."""
    return [Pair((name,), name) for name in names]


def their_shapes(pairs: Sequence[Pair], shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the shapes in their layout of tensors whose shapes are given in ours."""
    result = {}
    for pair in pairs:
        shape = tuple(shapes[pair.ours[0]])
        if pair.form == "stacked":
            shape = (sum(shapes[name][0] for name in pair.ours), *shape[1:])
        elif pair.form == "transposed":
            shape = shape[::-1]
        elif pair.form == "kernel":
            shape = (*shape, 1, 1)
        result[pair.theirs] = shape
    return result


def to_theirs(pair: Pair, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return their tensor of a pair, contiguous; a copy only where the form asks for one."""
    tensor = tensors[pair.ours[0]].detach()
    if pair.form == "stacked":
        return torch.cat([tensors[name].detach() for name in pair.ours])
    if pair.form == "transposed":
        return tensor.T.contiguous()
    return (tensor[..., None, None] if pair.form == "kernel" else tensor).contiguous()


def to_ours(pair: Pair, theirs: Tensor) -> dict[str, Tensor]:
    """Return our tensors of a pair, as views of theirs."""
    if pair.form == "stacked":
        return dict(zip(pair.ours, theirs.chunk(len(pair.ours)), strict=True))
    if pair.form == "transposed":
        theirs = theirs.T
    elif pair.form == "kernel":
        assert prod(theirs.shape[2:]) == 1
        theirs = theirs.flatten(1)
    return {pair.ours[0]: theirs}
