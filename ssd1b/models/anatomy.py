"""A UNet's anatomy read off the names of its weights, in diffusers' numbering, whichever layout the names are of.

What a file lacks is not invented: a number counts as there when any weight under it is, so that a file that was cut
short reads as the model it was cut from, and the weights that are gone can be named.
"""

import re
from collections.abc import Iterable

from ssd1b.family.keep import Block, KeepMap, Layer

OURS = re.compile(
    r"(?P<part>down|up)_blocks\.(?P<block>\d{1,3})\.(?P<kind>resnets|attentions)\.(?P<layer>\d{1,3})\."
    r"(?:transformer_blocks\.(?P<depth>\d{1,3})\.)?"
)
OUR_MID = re.compile(r"mid_block\.(?P<kind>resnets|attentions)\.\d{1,3}\.(?:transformer_blocks\.(?P<depth>\d{1,3})\.)?")
THEIRS = re.compile(
    r"(?P<part>input|output)_blocks\.(?P<n>\d{1,3})\.(?P<slot>\d)\."
    r"(?:transformer_blocks\.(?P<depth>\d{1,3})\.|(?P<kind>op|conv)\.)?"
)
THEIR_MID = re.compile(r"middle_block\.(?P<slot>\d)\.(?:transformer_blocks\.(?P<depth>\d{1,3})\.)?")

Depths = dict[int, int | None]
"""Layer -> transformer blocks of its attention; None: no attention."""


def diffusers_anatomy(names: Iterable[str]) -> KeepMap:
    """Return the anatomy of a UNet whose weights have diffusers' names."""
    blocks: dict[str, dict[int, Depths]] = {"down": {}, "up": {}}
    mid: int | None = None
    for name in names:
        if match := OURS.match(name):
            layers = blocks[match["part"]].setdefault(int(match["block"]), {})
            deepen(layers, int(match["layer"]), match["kind"] == "attentions", match["depth"])
        elif match := OUR_MID.match(name):
            mid = max(mid or 0, 0 if match["kind"] == "resnets" else 1 + int(match["depth"] or 0))
    return assembled(listed(blocks["down"]), mid, listed(blocks["up"]))


def sgm_anatomy(names: Iterable[str]) -> KeepMap:
    """Return the anatomy of a UNet whose weights have SGM's names (without `model.diffusion_model.`)."""
    numbered: dict[str, Depths] = {"input": {}, "output": {}}
    ends: dict[str, set[int]] = {"input": set(), "output": set()}
    mid: int | None = None
    for name in names:
        if match := THEIRS.match(name):
            part, n, slot = match["part"], int(match["n"]), int(match["slot"])
            if match["kind"] in ("op", "conv"):  # a level ends: by a block of its own on the way down, within one up
                ends[part].add(n)
            elif n or part == "output":  # the first input block is the convolution that every UNet begins with
                deepen(numbered[part], n, slot == 1, match["depth"])
        elif match := THEIR_MID.match(name):
            mid = max(mid or 0, 1 + int(match["depth"] or 0) if match["slot"] == "1" else 0)
    down: list[Depths] = [{}]
    for n in range(1, 1 + max([*numbered["input"], *ends["input"]], default=0)):
        if n in ends["input"]:
            down.append({})
        else:
            down[-1][len(down[-1])] = numbered["input"].get(n)
    up: list[Depths] = [{}]
    for n in range(1 + max(numbered["output"], default=-1)):
        up[-1][len(up[-1])] = numbered["output"].get(n)
        if n in ends["output"]:
            up.append({})
    return assembled(down, mid, [each for each in up if each])


def deepen(layers: Depths, layer: int, attention: bool, depth: str | None) -> None:
    """Note one weight of a layer."""
    before = layers.setdefault(layer, None)
    if attention:
        layers[layer] = max(before or 1, 1 + int(depth or 0))


def listed(blocks: dict[int, Depths]) -> list[Depths]:
    return [blocks.get(i, {}) for i in range(1 + max(blocks, default=-1))]


def assembled(down: list[Depths], mid: int | None, up: list[Depths]) -> KeepMap:
    """Return the keep map; a block with any attention has one in every layer, for diffusers knows nothing else."""

    def block(i: int, depths: Depths) -> Block:
        count = 1 + max(depths, default=-1)
        attention = any(depth is not None for depth in depths.values())
        layers = (Layer(j, tuple(range(depths.get(j) or 1)) if attention else None) for j in range(count))
        return Block(i, tuple(layers))

    return KeepMap(
        tuple(block(i, each) for i, each in enumerate(down)),
        None if mid is None else tuple(range(mid)),
        tuple(block(i, each) for i, each in enumerate(up)),
    )
