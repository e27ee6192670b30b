"""Which layer of this model a layer's name in an adapter's file means.

Files name layers in diffusers' way or in that of Stable Diffusion's own code (SGM), with dots or with underscores. And
they may number blocks as this model does or as the one it was carved from: SSD-1B's fourth transformer block of a stack
is SDXL's seventh, so an adapter made for SDXL that is read by number would change the wrong block without a word.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from ssd1b.family.carve import declared
from ssd1b.family.keep import KeepMap, everything, student_config
from ssd1b.family.table import FAMILY
from ssd1b.models.sgm import unet_modules

MadeFor = Literal["auto", "base", "itself"]
"""Whose blocks a file numbers: the model's that this one was carved from, or this one's. auto: the base's if the file
names a block that only the base has."""
BASES = ("sdxl", "sd-1.5")
"""What the members of the two lines were carved from; a nano twin has the same blocks."""


@dataclass(frozen=True)
class BlockMap:
    """The blocks of a model, and of the one it was carved from where it was."""

    anatomy: KeepMap
    base: KeepMap | None = None
    """Anatomy of what it was carved from."""
    kept: KeepMap | None = None
    """What of the base it kept."""

    @staticmethod
    def of(config: Mapping[str, Any], kept: KeepMap | None = None) -> "BlockMap":
        """Return the map of a UNet of a diffusers config.

        kept is what it kept of its base, as its lineage says; without it, or where it does not lead to this UNet, what
        the family declares for students of this anatomy. A UNet that is no student has no base.
        """
        anatomy = everything(config)
        for name in BASES:
            base = everything(FAMILY[name])
            if anatomy == base:
                return BlockMap(anatomy)
            try:
                if kept is not None and everything(student_config(FAMILY[name], kept)) == anatomy:
                    return BlockMap(anatomy, base, kept)
                return BlockMap(anatomy, base, declared(FAMILY[name], config))
            except ValueError:  # no smaller form of this base: it is of the other line, or of neither
                continue
        return BlockMap(anatomy)

    def own_names(self, paths: Iterable[str]) -> dict[str, str]:
        """Return every name of layers in this model's numbering -> its path."""
        return {name: path for path in paths for name in spellings(path, self.own_modules)}

    def base_names(self, paths: Iterable[str]) -> dict[str, str]:
        """Return every name of layers in the base's numbering -> the path in this model."""
        assert self.kept is not None
        return {name: path for path in paths for name in spellings(self.kept.teacher_name(path), self.base_modules)}

    def only_in_base(self, name: str) -> bool:
        """Return whether a layer lies in a block that the base has and this model's numbering has not."""
        return self.is_carved(name) and not f"{name}.".startswith(self.own)

    def is_carved(self, name: str) -> bool:
        """Return whether a layer, in the base's numbering, lies in a block that was carved away."""
        return f"{name}.".startswith(self.carved)

    @cached_property
    def own(self) -> tuple[str, ...]:
        """How the names of layers begin that lie in blocks of this model."""
        return beginnings(blocks_of(self.anatomy), self.own_modules)

    @cached_property
    def carved(self) -> tuple[str, ...]:
        """How the names of layers begin, in the base's numbering, that lie in blocks which were carved away."""
        if self.base is None or self.kept is None:
            return ()
        here = {self.kept.teacher_name(block) for block in blocks_of(self.anatomy)}
        return beginnings((block for block in blocks_of(self.base) if block not in here), self.base_modules)

    @cached_property
    def own_modules(self) -> dict[str, str]:
        """Diffusers path -> SGM path of this model."""
        return unet_modules(self.anatomy)

    @cached_property
    def base_modules(self) -> dict[str, str]:
        """Diffusers path -> SGM path of the base."""
        assert self.base is not None
        return unet_modules(self.base)


def beginnings(blocks: Iterable[str], modules: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(name + mark for block in blocks for name in spellings(block, modules) for mark in "._")


def blocks_of(anatomy: KeepMap) -> Iterator[str]:
    """Yield the paths of all resnets and transformer blocks, and of what lies beside these in an attention."""
    for part in ("down", "up"):
        for i, block in enumerate(getattr(anatomy, part)):
            for j, layer in enumerate(block.layers):
                yield f"{part}_blocks.{i}.resnets.{j}"
                if layer.blocks is not None:
                    yield from attention(f"{part}_blocks.{i}.attentions.{j}", len(layer.blocks))
    if anatomy.mid is not None:
        yield "mid_block.resnets.0"
        if anatomy.mid:
            yield "mid_block.resnets.1"
            yield from attention("mid_block.attentions.0", len(anatomy.mid))


def attention(path: str, depth: int) -> Iterator[str]:
    yield from (f"{path}.proj_in", f"{path}.proj_out")
    for n in range(depth):
        yield f"{path}.transformer_blocks.{n}"


def spellings(path: str, modules: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of a path of modules: diffusers' and SGM's, with dots and with underscores."""
    names = [path]
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        if theirs := modules.get(".".join(parts[:end])):
            names.append(".".join([theirs, *parts[end:]]))
            break
    return tuple(dict.fromkeys(spelt for name in names for spelt in (name, name.replace(".", "_"))))
