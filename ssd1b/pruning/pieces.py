"""Pieces: what can be taken out of a UNet without changing the width of anything, one at a time.

A piece is a transformer block; the mid block's attention with the resnet behind it; the mid block; or a layer on the
way down with the layer on the way up that it is joined to by its skip connection (BK-SDM, arXiv 2305.15798).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from ssd1b.family.keep import KeepMap


@dataclass(frozen=True)
class Piece:
    """Something that can go."""

    name: str
    modules: tuple[str, ...]
    """Paths of the modules that go with it."""


def block(attention: str, index: int) -> Piece:
    """Return the piece that is one transformer block."""
    path = f"{attention}.transformer_blocks.{index}"
    return Piece(path, (path,))


MID_ATTENTION = Piece("mid_block attention and second resnet", ("mid_block.attentions.0", "mid_block.resnets.1"))
MID = Piece("mid_block", ("mid_block",))


def layer(whole: KeepMap, level: int) -> Piece | None:
    """Return the second layer of a level, on both ways; None where the level has only one.

    The first layer down and the first and last up join two widths, so they have to stay.
    """
    down, up = whole.down[level], whole.up[-1 - level]
    if len(down.layers) != 2:
        return None
    paths = [f"down_blocks.{down.index}.resnets.1", f"up_blocks.{up.index}.resnets.1"]
    if down.layers[1].blocks is not None:
        paths.append(f"down_blocks.{down.index}.attentions.1")
    if up.layers[1].blocks is not None:
        paths.append(f"up_blocks.{up.index}.attentions.1")
    return Piece(f"layer 1 of down_blocks.{down.index} and up_blocks.{up.index}", tuple(paths))


def attentions(whole: KeepMap) -> dict[str, tuple[int, ...]]:
    """Return the transformer blocks of every attention outside the mid block, by its path."""
    return {
        f"{part}_blocks.{block.index}.attentions.{each.index}": each.blocks
        for part in ("down", "up")
        for block in getattr(whole, part)
        for each in block.layers
        if each.blocks is not None
    }


def pieces(whole: KeepMap) -> list[Piece]:
    """Return all pieces of a UNet of this anatomy."""
    found = [block(path, i) for path, blocks in attentions(whole).items() for i in blocks]
    if whole.mid is not None:
        found += [block("mid_block.attentions.0", i) for i in whole.mid]
        found += [MID_ATTENTION, MID] if whole.mid else [MID]
    return found + [piece for level in range(len(whole.down)) if (piece := layer(whole, level))]


def parameters(unet: nn.Module, piece: Piece) -> int:
    """Return the number of weights that go with a piece."""
    return sum(weight.numel() for path in piece.modules for weight in unet.get_submodule(path).parameters())


@contextmanager
def without(unet: UNet2DConditionModel, gone: Iterable[Piece]) -> Iterator[None]:
    """Within it, the UNet computes what it would without the pieces: what enters them leaves them as it came."""
    modules = [unet.get_submodule(path) for piece in gone for path in piece.modules]
    for module in modules:
        module.forward = passing(module)
    try:
        yield
    finally:
        for module in modules:
            del module.__dict__["forward"]


def passing(module: nn.Module) -> Any:
    """Return a forward that hands on its first argument, in the form in which the module returns."""

    def forward(hidden: Tensor, *_args: Any, **_kwargs: Any) -> Any:
        if isinstance(module, ResnetBlock2D):
            return hidden[:, : module.out_channels]  # on the way up the skip connection comes behind
        return (hidden,) if isinstance(module, Transformer2DModel) else hidden

    return forward
