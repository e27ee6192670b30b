"""The LoRA bank: the matrices of all resident adapters, as inputs of the engine.

Layers of one shape are stacked, so a UNet with hundreds of adapted layers needs a handful of inputs. Uploading a slot
is the whole swap: no refit, no rebuild, no pause, and rows with unlike adapters share a batch. Slot 0 is zeros.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssd1b.adapters.adapter import Adapter

# S slots, L layers of a group, I and O widths of its layers, R rank of the bank


@dataclass(frozen=True)
class Group:
    """Linear layers of one shape, in the order of the stack."""

    inside: int
    outside: int
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """Which layers of a UNet adapters may change, and where each lies in the bank."""

    groups: tuple[Group, ...]

    @staticmethod
    def of(shapes: Mapping[str, tuple[int, int]]) -> "Layout":
        """Group layers (path -> (in, out)) by shape; the same layers give the same layout in any order."""
        groups: dict[tuple[int, int], list[str]] = defaultdict(list)
        for path in sorted(shapes):
            groups[shapes[path]].append(path)
        return Layout(tuple(Group(*shape, tuple(groups[shape])) for shape in sorted(groups)))

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Layer path -> (in, out)."""
        return {path: (group.inside, group.outside) for group in self.groups for path in group.paths}


class Bank:
    """The bank's arrays: per group A of (S, L, I, R) and B of (S, L, R, O), float32."""

    def __init__(self, layout: Layout, slots: int, rank: int) -> None:
        self.layout, self.slots, self.rank = layout, slots, rank
        self.arrays: list[NDArray[np.float32]] = []
        """A and B of the first group, A and B of the second, ...: the order of the engine's inputs."""
        self.place: dict[str, tuple[int, int]] = {}
        for i, group in enumerate(layout.groups):
            layers = len(group.paths)
            self.arrays.append(np.zeros((slots, layers, group.inside, rank), np.float32))
            self.arrays.append(np.zeros((slots, layers, rank, group.outside), np.float32))
            self.place.update({path: (i, layer) for layer, path in enumerate(group.paths)})

    def put(self, slot: int, adapter: Adapter | None) -> None:
        """Overwrite a slot in place with an adapter, or with zeros. What it cannot hold leaves the slot as it was.

        Raises:
            ValueError: slot 0 or past the last, a rank above the bank's, or a layer that is not adapted or unlike.
        """
        if not 1 <= slot < self.slots:
            raise ValueError(f"slot {slot}: adapters go into slots 1 to {self.slots - 1}; slot 0 means no adapter")
        if adapter is not None:
            self.check(adapter)
        for array in self.arrays:
            array[slot] = 0
        for path, (a_IR, b_RO) in (adapter.layers if adapter else {}).items():
            group, layer = self.place[path]
            rank = a_IR.shape[1]
            self.arrays[2 * group][slot, layer, :, :rank] = a_IR.numpy()
            self.arrays[2 * group + 1][slot, layer, :rank] = b_RO.numpy()

    def check(self, adapter: Adapter) -> None:
        if adapter.rank > self.rank:
            raise ValueError(f"adapter {adapter.name!r} has rank {adapter.rank}, this engine holds up to {self.rank}: "
                             f"export the engine with a greater rank or shrink the adapter")  # fmt: skip
        shapes = self.layout.shapes
        for path, (a_IR, b_RO) in adapter.layers.items():
            if shapes.get(path) != (a_IR.shape[0], b_RO.shape[1]):
                raise ValueError(f"adapter {adapter.name!r} changes {path} as a layer of {a_IR.shape[0]} to "
                                 f"{b_RO.shape[1]}; this engine has {shapes.get(path, 'no such layer')}")  # fmt: skip
