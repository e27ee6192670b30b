"""Keep maps: what of a UNet stays, as a plain value in the UNet's own numbering. Pure; no torch.

The keep map of everything is the UNet's anatomy, so one noun serves to describe a UNet, to carve it and to say what a
student lacks. `student_config` turns a keep map into the diffusers config of the UNet that is left.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

PARTS = ("mid", "down", "up")
ATTENTION_MID, RESNET_MID = "UNetMidBlock2DCrossAttn", "UNetMidBlock2D"
PATH = re.compile(
    r"(?P<part>down|up)_blocks\.(?P<block>\d+)"
    r"(?:\.(?P<kind>resnets|attentions)\.(?P<layer>\d+)(?:\.transformer_blocks\.(?P<depth>\d+))?)?(?P<rest>\..*)?"
)
MID_PATH = re.compile(r"mid_block\.attentions\.0\.transformer_blocks\.(?P<depth>\d+)(?P<rest>\..*)?")


@dataclass(frozen=True)
class Layer:
    """One resnet, and the attention behind it where there is one."""

    index: int
    blocks: tuple[int, ...] | None = None
    """Transformer blocks of the attention; None: a layer without attention."""


@dataclass(frozen=True)
class Block:
    """One resolution of the way down or up."""

    index: int
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class KeepMap:
    """The blocks, layers and transformer blocks of a UNet that stay."""

    down: tuple[Block, ...]
    mid: tuple[int, ...] | None
    """Transformer blocks of the mid block; (): its first resnet alone; None: no mid block."""
    up: tuple[Block, ...]

    def only(self, parts: Iterable[str], otherwise: "KeepMap") -> "KeepMap":
        """Return this map in the parts ("mid", "down", "up") and another one elsewhere.

        Raises:
            ValueError: an unknown part.
        """
        chosen = {}
        for part in parts:
            if part not in PARTS:
                raise ValueError(f"no part {part!r} to carve: choose from {', '.join(PARTS)}")
            chosen[part] = getattr(self, part)
        return replace(otherwise, **chosen)

    def teacher_name(self, name: str) -> str:
        """Return which tensor or module of the teacher a name of the student stands for."""
        if match := MID_PATH.fullmatch(name):
            assert self.mid
            return f"mid_block.attentions.0.transformer_blocks.{self.mid[int(match['depth'])]}{match['rest'] or ''}"
        if not (match := PATH.fullmatch(name)):
            return name
        block = getattr(self, match["part"])[int(match["block"])]
        path = f"{match['part']}_blocks.{block.index}"
        if match["kind"]:
            layer = block.layers[int(match["layer"])]
            path += f".{match['kind']}.{layer.index}"
            if match["depth"]:
                path += f".transformer_blocks.{layer.blocks[int(match['depth'])]}"
        return path + (match["rest"] or "")

    def after(self, first: "KeepMap") -> "KeepMap":
        """Return the one map that does what `first` and then this one do; this one numbers what `first` left."""

        def blocks(before: tuple[Block, ...], now: tuple[Block, ...]) -> tuple[Block, ...]:
            return tuple(Block(before[block.index].index, layers(before[block.index], block)) for block in now)

        def layers(before: Block, now: Block) -> tuple[Layer, ...]:
            old = [before.layers[layer.index] for layer in now.layers]
            return tuple(
                Layer(was.index, through(was.blocks, layer.blocks)) for was, layer in zip(old, now.layers, strict=True)
            )

        def through(before: tuple[int, ...] | None, now: tuple[int, ...] | None) -> tuple[int, ...] | None:
            return None if before is None or now is None else tuple(before[i] for i in now)

        return KeepMap(blocks(first.down, self.down), through(first.mid, self.mid), blocks(first.up, self.up))

    def inside(self, first: "KeepMap") -> "KeepMap":
        """Return this map in the numbering of what `first` left: the inverse of `after`.

        Raises:
            ValueError: this map keeps what `first` took away.
        """

        def found(index: int, kept: list[int] | tuple[int, ...], where: str) -> int:
            if index not in kept:
                raise ValueError(f"{where} {index} is gone already: {list(kept)} are left")
            return kept.index(index)

        def blocks(part: str) -> tuple[Block, ...]:
            before: tuple[Block, ...] = getattr(first, part)
            left = [block.index for block in before]
            made = []
            for block in getattr(self, part):
                at = found(block.index, left, f"{part} block")
                layers = [layer.index for layer in before[at].layers]
                made.append(
                    Block(
                        at, tuple(layer_in(before[at], layer, layers, f"{part}_blocks.{at}") for layer in block.layers)
                    )
                )
            return tuple(made)

        def layer_in(before: Block, layer: Layer, layers: list[int], where: str) -> Layer:
            at = found(layer.index, layers, f"{where} layer")
            kept = before.layers[at].blocks
            if layer.blocks is None or kept is None:
                return Layer(at, layer.blocks)
            return Layer(at, tuple(found(i, kept, f"{where} layer {at} transformer block") for i in layer.blocks))

        mid = self.mid and tuple(found(i, first.mid or (), "mid_block transformer block") for i in self.mid)
        return KeepMap(blocks("down"), mid, blocks("up"))

    @property
    def depth(self) -> int:
        """Transformer blocks that stay."""
        layers = [layer for block in (*self.down, *self.up) for layer in block.layers]
        return sum(len(layer.blocks or ()) for layer in layers) + len(self.mid or ())

    @property
    def resnets(self) -> int:
        """Resnets that stay."""
        mid = 0 if self.mid is None else 2 if self.mid else 1
        return sum(len(block.layers) for block in (*self.down, *self.up)) + mid


def read_keep_map(path: Path) -> KeepMap:
    """Return the keep map of a file that `jobs.carve` wrote.

    Raises:
        ValueError: no such file, or one that holds no keep map.
    """
    if not path.is_file():
        raise ValueError(f"no keep map at {path}: give the keep_map.json of a `python -m jobs.carve` run")
    try:
        return TypeAdapter(KeepMap).validate_json(path.read_text())
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{path} is no keep map: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def everything(config: Mapping[str, Any]) -> KeepMap:
    """Return the keep map that keeps all of a UNet of this diffusers config: its anatomy.

    Raises:
        ValueError: a kind of block that the family does not have.
    """
    levels = len(config["down_block_types"])
    layers, depths = config.get("layers_per_block", 2), config.get("transformer_layers_per_block", 1)
    reverse = config.get("reverse_transformer_layers_per_block")
    counts = [layers] * levels if isinstance(layers, int) else list(layers)
    down = [depths] * levels if isinstance(depths, int) else list(depths)
    up = list(reversed(down)) if reverse is None else list(reverse)

    def block(i: int, kind: str, count: int, depth: Any) -> Block:
        if kind not in ("DownBlock2D", "UpBlock2D", "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"):
            raise ValueError(f"a UNet with a {kind} is not of this family: it cannot be described or carved")
        if not kind.startswith("CrossAttn"):
            return Block(i, tuple(Layer(j) for j in range(count)))
        each = [depth] * count if isinstance(depth, int) else list(depth)
        return Block(i, tuple(Layer(j, tuple(range(each[j]))) for j in range(count)))

    mid: tuple[int, ...] | None = None
    if kind := config.get("mid_block_type", ATTENTION_MID):
        if kind not in (ATTENTION_MID, RESNET_MID):
            raise ValueError(f"a UNet with a {kind} is not of this family: it cannot be described or carved")
        # diffusers builds the mid block's attention as deep as the first layer of the last way down
        deepest = down[-1] if isinstance(down[-1], int) else down[-1][0]
        mid = tuple(range(deepest)) if kind == ATTENTION_MID else ()
    return KeepMap(
        tuple(block(i, kind, counts[i], down[i]) for i, kind in enumerate(config["down_block_types"])),
        mid,
        tuple(block(i, kind, counts[-1 - i] + 1, up[i]) for i, kind in enumerate(config["up_block_types"])),
    )


def student_config(config: Mapping[str, Any], keep: KeepMap) -> dict[str, Any]:
    """Return the diffusers config of what is left of a UNet of `config`, in the shortest form there is for it.

    Raises:
        ValueError: diffusers has no config for what would be left; the message says what ties what.
    """
    # diffusers notes in private keys which values were defaults, and would put those back
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    full = everything(config)
    check(full, keep)
    levels = len(keep.down)
    for name in ("block_out_channels", "attention_head_dim", "num_attention_heads"):
        if isinstance(config.get(name), list | tuple):
            config[name] = config[name][:levels]
    for name, blocks in (("down_block_types", keep.down), ("up_block_types", keep.up)):
        config[name] = tuple(config[name][block.index] for block in blocks)
    counts = [len(block.layers) for block in keep.down]
    config["layers_per_block"] = counts[0] if len(set(counts)) == 1 else tuple(counts)
    config["mid_block_type"] = None if keep.mid is None else ATTENTION_MID if keep.mid else RESNET_MID
    if keep == full:
        return config
    return config | depth_config(keep)


def depth_config(keep: KeepMap) -> dict[str, Any]:
    """Return the two config keys that say how many transformer blocks each attention has."""
    down, up = ([depths(block) for block in blocks] for blocks in (keep.down, keep.up))
    last = down[-1]
    if keep.mid and last and last[0] != len(keep.mid):
        raise ValueError(
            f"the mid block would keep {len(keep.mid)} transformer blocks and the last way down {last[0]}: diffusers "
            f"builds both alike, so carve 'mid' to one resnet or keep as many in both"
        )
    # An attention-free level's entry counts nothing, but the last one's is where diffusers reads the mid block's depth.
    idle = [1] * (len(down) - 1) + [len(keep.mid or (1,))]
    flat = tuple(each[0] if each else idle[i] for i, each in enumerate(down))
    alike = all(set(each) <= {depth} for each, depth in zip([*down, *reversed(up)], [*flat, *flat], strict=True))
    if alike:
        one = flat[0] if len(set(flat)) == 1 else flat
        return {"transformer_layers_per_block": one, "reverse_transformer_layers_per_block": None}
    return {
        "transformer_layers_per_block": [each or [idle[i]] for i, each in enumerate(down)],
        "reverse_transformer_layers_per_block": [each or 1 for each in up],
    }


def depths(block: Block) -> list[int]:
    """Return the transformer blocks of each attention of a block; [] where it has no attention."""
    return [len(layer.blocks) for layer in block.layers if layer.blocks is not None]


def check(full: KeepMap, keep: KeepMap) -> None:
    """Raise ValueError if a map keeps what is not there, or what cannot stand alone."""
    levels = len(keep.down)
    wanted = (list(range(levels)), list(range(len(full.up) - levels, len(full.up))))
    if ([block.index for block in keep.down], [block.index for block in keep.up]) != wanted or not levels:
        raise ValueError(
            f"the map keeps down blocks {[block.index for block in keep.down]} and up blocks "
            f"{[block.index for block in keep.up]} of {len(full.down)}: only innermost levels can go, and on both ways"
        )
    for i, (down, up) in enumerate(zip(keep.down, reversed(keep.up), strict=True)):
        if len(up.layers) != len(down.layers) + 1:
            raise ValueError(
                f"level {i} would have {len(down.layers)} layers down and {len(up.layers)} up: every layer down is "
                f"joined to one up, and one more takes the downsampler's; carve 'down' and 'up' together"
            )
    for part in ("down", "up"):
        for block in getattr(keep, part):
            before = getattr(full, part)[block.index]
            picked([layer.index for layer in block.layers], len(before.layers), f"{part}_blocks.{block.index} layers")
            for layer in block.layers:
                was = before.layers[layer.index].blocks
                where = f"{part}_blocks.{block.index}.attentions.{layer.index} transformer blocks"
                if (was is None) != (layer.blocks is None):
                    raise ValueError(f"{where}: the map has {layer.blocks}, the UNet has {was}")
                if was is not None and layer.blocks is not None:
                    picked(layer.blocks, len(was), where)
    if keep.mid is not None:
        if full.mid is None:
            raise ValueError("the map keeps a mid block, and the UNet has none")
        picked(keep.mid, len(full.mid), "mid_block transformer blocks", empty=True)


def picked(indices: Iterable[int], count: int, where: str, empty: bool = False) -> None:
    """Raise ValueError unless the indices rise, lie below count, and are some."""
    indices = list(indices)
    if indices != sorted(set(indices)) or any(not 0 <= i < count for i in indices) or not (indices or empty):
        raise ValueError(f"{where}: the map keeps {indices} of {count}: give rising indices from 0 to {count - 1}")
