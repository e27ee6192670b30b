"""A LoRA adapter in the one form that everything here uses, whatever file it came from."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Adapter:
    """Low-rank changes of Linear layers: each layer computes x W' + (x A) B."""

    name: str
    layers: Mapping[str, tuple[Tensor, Tensor]]
    """Layer path in the UNet -> (A of (in, r), B of (r, out)), float32, alpha / rank folded into B."""

    @property
    def rank(self) -> int:
        """The greatest rank of its layers."""
        return max((a.shape[1] for a, _ in self.layers.values()), default=0)

    @property
    def parameters(self) -> int:
        return sum(a.numel() + b.numel() for a, b in self.layers.values())
