"""The LoRA bank: the matrices of all resident adapters, as inputs of the engine.

Layers of one shape are stacked, so a UNet with hundreds of adapted layers needs a handful of inputs. Uploading a slot
is the whole swap: no refit, no rebuild, no pause, and rows with unlike adapters share a batch. Slot 0 is zeros.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssd1b.adapters.adapter import Layers, LayerShape, Shapes, rank_of

# S slots, L layers of a group, I and O widths of its layers, R rank of the bank, K positions of a kernel


@dataclass(frozen=True)
class Group:
    """Layers of one shape, in the order of the stack."""

    shape: LayerShape
    paths: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the group is called in the names of the bank's inputs: "64x128", "32x64k3s2"."""
        inside, outside, kernel, stride = self.shape
        return f"{inside}x{outside}" + (f"k{kernel}" if kernel else "") + (f"s{stride}" if stride != 1 else "")


@dataclass(frozen=True)
class Layout:
    """Which layers of a model adapters may change, and where each lies in the bank."""

    groups: tuple[Group, ...]

    @staticmethod
    def of(shapes: Shapes) -> "Layout":
        """Group layers by shape; the same layers give the same layout in any order."""
        groups: dict[LayerShape, list[str]] = defaultdict(list)
        for path in sorted(shapes):
            groups[shapes[path]].append(path)
        return Layout(tuple(Group(shape, tuple(groups[shape])) for shape in sorted(groups)))

    @property
    def shapes(self) -> dict[str, LayerShape]:
        """Layer path -> its shape."""
        return {path: group.shape for group in self.groups for path in group.paths}


class Bank:
    """The bank's arrays, on one device, in the precision that the engine computes in.

    Per group A of (S, L, I, R) and B of (S, L, R, O). A convolution's A is (S, L, K, R, I): a matrix for every position
    of its kernel.
    """

    def __init__(
        self,
        layout: Layout,
        slots: int,
        rank: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.layout, self.slots, self.rank = layout, slots, rank
        self.arrays: list[Tensor] = [
            torch.zeros(slots, *shape, device=device, dtype=dtype) for shape in self.slot_shapes()
        ]
        """A and B of the first group, A and B of the second, ...: the order of the engine's inputs."""
        self.place = {path: (i, n) for i, group in enumerate(layout.groups) for n, path in enumerate(group.paths)}
        self.filled: set[int] = set()
        """Slots that hold an adapter."""

    def slot_shapes(self) -> list[tuple[int, ...]]:
        """Return the shape of one slot of each array."""
        shapes: list[tuple[int, ...]] = []
        for group in self.layout.groups:
            inside, outside, kernel, _ = group.shape
            layers = len(group.paths)
            shapes.append((layers, kernel**2, self.rank, inside) if kernel else (layers, inside, self.rank))
            shapes.append((layers, self.rank, outside))
        return shapes

    def put(self, slot: int, layers: Layers | None, name: str = "") -> None:
        """Overwrite a slot in place with an adapter's layers, or with zeros. A refusal leaves the slot as it was.

        Raises:
            ValueError: slot 0 or past the last, a rank above the bank's, or a layer that is not adapted or unlike.
        """
        self.write(slot, self.stage(slot, layers, name))

    def stage(self, slot: int, layers: Layers | None, name: str = "") -> list[Tensor] | None:
        """Return what `write` copies into a slot, None for zeros; the bank is not touched, so steps may go on.

        Raises:
            ValueError: see `put`.
        """
        if not 1 <= slot < self.slots:
            raise ValueError(f"slot {slot}: adapters go into slots 1 to {self.slots - 1}; slot 0 means no adapter")
        if not layers:
            return None
        self.check(layers, name)
        on_gpu = bool(self.arrays) and self.arrays[0].is_cuda
        staged = [
            torch.zeros(shape, dtype=array.dtype, pin_memory=on_gpu)
            for shape, array in zip(self.slot_shapes(), self.arrays, strict=True)
        ]
        for path, (a_IR, b_RO) in layers.items():
            i, layer = self.place[path]
            rank, kernel = a_IR.shape[1], self.layout.groups[i].shape.kernel
            if kernel:
                staged[2 * i][layer, :, :rank] = a_IR.reshape(-1, kernel**2, rank).permute(1, 2, 0)
            else:
                staged[2 * i][layer, :, :rank] = a_IR
            staged[2 * i + 1][layer, :rank] = b_RO
        return staged

    def write(self, slot: int, staged: Sequence[Tensor] | None) -> None:
        """Copy what `stage` returned into a slot and touch no other."""
        for i, array in enumerate(self.arrays):
            if staged is None:
                array[slot].zero_()
            else:
                array[slot].copy_(staged[i], non_blocking=True)
        (self.filled.discard if staged is None else self.filled.add)(slot)

    def needed(self, slot_B: Tensor) -> bool:
        """Return whether rows of these slots need the side paths; never waits for a GPU to look at them."""
        return bool(slot_B.any()) if slot_B.device.type == "cpu" else bool(self.filled)

    def check(self, layers: Layers, name: str) -> None:
        if (rank := rank_of(layers)) > self.rank:
            raise ValueError(f"adapter {name!r} has rank {rank}, this engine holds up to {self.rank}: open the engine "
                             f"with a greater rank, or shrink the adapter (`Adapter.truncated`)")  # fmt: skip
        shapes = self.layout.shapes
        for path, (a_IR, b_RO) in layers.items():
            shape = shapes.get(path)
            if shape is None or (shape.fan_in, shape.outside) != (a_IR.shape[0], b_RO.shape[1]):
                raise ValueError(f"adapter {name!r} changes {path} as a layer of {a_IR.shape[0]} to "
                                 f"{b_RO.shape[1]}; this engine has {shape or 'no such layer'}")  # fmt: skip
