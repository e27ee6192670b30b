"""A LoRA adapter in the one form that everything here uses, whatever file it came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

# I and O widths of a layer, R rank


class LayerShape(NamedTuple):
    """What an adapter must know of the layer it changes."""

    inside: int
    outside: int
    kernel: int = 0
    """Side of a convolution's kernel; 0 is a Linear."""
    stride: int = 1
    """Of a convolution, whose padding is half of its kernel."""

    @property
    def fan_in(self) -> int:
        """Numbers that one output number is made of."""
        return self.inside * max(1, self.kernel) ** 2

    def __str__(self) -> str:
        kernel = f" by {self.kernel}x{self.kernel} convolution" if self.kernel else ""
        return f"{self.inside} to {self.outside}{kernel}"


Shapes = Mapping[str, LayerShape]
"""Layer path -> its shape."""
Layers = Mapping[str, tuple[Tensor, Tensor]]
"""Layer path -> (A of (in, r), B of (r, out)), float32, alpha / rank folded into B.

A convolution's `in` is its kernel laid flat, in * height * width, in the order of its weight."""


@dataclass(frozen=True)
class Adapter:
    """Low-rank changes of layers: each computes x W' + (x A) B."""

    name: str
    layers: Layers
    """Of the UNet."""
    text: tuple[Layers, ...] = field(default=())
    """Of each text tower, () where the adapter leaves them alone. Paths are without `text_model.`, which some versions
    of transformers have and some have not."""

    @property
    def rank(self) -> int:
        """The greatest rank of its layers in the UNet."""
        return rank_of(self.layers)

    @property
    def text_rank(self) -> int:
        """The greatest rank of its layers in the text towers."""
        return max(map(rank_of, self.text), default=0)

    @property
    def parameters(self) -> int:
        return sum(a.numel() + b.numel() for part in (self.layers, *self.text) for a, b in part.values())

    @staticmethod
    def combine(parts: Sequence[tuple["Adapter", float]]) -> "Adapter":
        """Return one adapter that does what all do at once, each at its weight: ranks add up, weights go into B.

        Raises:
            ValueError: no adapters.
        """
        if not parts:
            raise ValueError("no adapters to combine: give at least one, with its weight")
        towers = max(len(adapter.text) for adapter, _ in parts)
        text = [[(a.text[i] if a.text else {}, weight) for a, weight in parts] for i in range(towers)]
        return Adapter(
            "+".join(f"{adapter.name}*{weight:g}" for adapter, weight in parts),
            side_by_side([(adapter.layers, weight) for adapter, weight in parts]),
            tuple(side_by_side(tower) for tower in text),
        )

    def truncated(self, rank: int) -> "Adapter":
        """Return the adapter of at most this rank that is nearest to it, layer by layer (Eckart and Young, 1936).

        Raises:
            ValueError: a rank below 1.
        """
        if rank < 1:
            raise ValueError(f"rank {rank} holds nothing: give 1 or more")
        return Adapter(self.name, truncated(self.layers, rank), tuple(truncated(part, rank) for part in self.text))


def rank_of(layers: Layers) -> int:
    return max((a.shape[1] for a, _ in layers.values()), default=0)


def side_by_side(parts: Sequence[tuple[Layers, float]]) -> Layers:
    """Return layers whose ranks are those of all parts together."""
    paths = dict.fromkeys(path for layers, _ in parts for path in layers)
    having = {path: [(*layers[path], weight) for layers, weight in parts if path in layers] for path in paths}
    return {
        path: (torch.cat([a for a, _, _ in found], 1), torch.cat([weight * b for _, b, weight in found]))
        for path, found in having.items()
    }


def truncated(layers: Layers, rank: int) -> Layers:
    return {path: (a, b) if a.shape[1] <= rank else nearest(a, b, rank) for path, (a, b) in layers.items()}


def nearest(a_IR: Tensor, b_RO: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the two factors of the best approximation of A B by this rank; the product itself is never built."""
    q_IR, left_RR = torch.linalg.qr(a_IR)
    p_OR, right_RR = torch.linalg.qr(b_RO.T)
    u_RR, s_R, v_RR = torch.linalg.svd(left_RR @ right_RR.T)
    root_R = s_R[:rank].sqrt()
    return q_IR @ (u_RR[:, :rank] * root_R), root_R[:, None] * (v_RR[:rank] @ p_OR.T)
