"""Choose what stays within a budget of parameters: the keep map with the least sum of measured errors. Pure.

LAPTOP-Diff (arXiv 2404.11098) poses the choice as a knapsack. Here it is solved exactly. Pieces that depend on one
another form a group: a layer and the blocks within it, the mid block and the attention whose depth diffusers ties to
it. A group has a few options, each with what it saves and what it costs; a frontier is the options that no other one
beats in both. Frontiers of independent groups are merged until one is left.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product

from ssd1b.family.keep import Block, KeepMap
from ssd1b.pruning.pieces import MID, MID_ATTENTION, Piece, attentions, block, layer

MID_PATH = "mid_block.attentions.0"


@dataclass(frozen=True)
class Option:
    """One way to treat a group, or several groups together."""

    saved: int
    """Parameters that go."""
    error: float
    """Sum of the errors of the pieces that go."""
    gone: tuple[Piece, ...]

    def __add__(self, other: "Option") -> "Option":
        return Option(self.saved + other.saved, self.error + other.error, self.gone + other.gone)


NOTHING = Option(0, 0.0, ())


@dataclass(frozen=True)
class Costs:
    """What was measured, by the name of a piece."""

    total: int
    """Parameters of the whole UNet."""
    parameters: Mapping[str, int]
    error: Mapping[str, float]

    def option(self, *gone: Piece) -> Option:
        names = [piece.name for piece in gone]
        return Option(sum(self.parameters[n] for n in names), sum(self.error[n] for n in names), gone)


def choose(whole: KeepMap, costs: Costs, budget: int) -> Option:
    """Return what goes so that at most `budget` parameters are left, at the least sum of errors.

    Raises:
        ValueError: the budget is below the smallest student; the message says how small that is.
    """
    frontier = [NOTHING]
    for group in groups(whole, costs):
        frontier = merge(frontier, group)
    enough = [option for option in frontier if costs.total - option.saved <= budget]
    if not enough:
        least = costs.total - max(option.saved for option in frontier)
        raise ValueError(
            f"no student of {budget:,} parameters can be carved: from {costs.total:,} the least is {least:,}"
        )
    return min(enough, key=lambda option: (option.error, option.saved))


def groups(whole: KeepMap, costs: Costs) -> list[list[Option]]:
    """Return the frontiers of the groups that can be treated independently of one another."""
    depths = attentions(whole)
    ways = {path: thinned(path, blocks, costs) for path, blocks in depths.items()}
    found, taken = [], set()
    for level, (down, up) in enumerate(zip(whole.down, reversed(whole.up), strict=True)):
        piece = layer(whole, level)
        if piece is None:
            continue
        within = [
            path
            for path in (f"down_blocks.{down.index}.attentions.1", f"up_blocks.{up.index}.attentions.1")
            if path in ways
        ]
        kept = [sum(each, NOTHING) for each in product(*(ways[path] for path in within))]
        found.append(best([*kept, costs.option(piece)]))
        taken.update(within)
    tied = f"down_blocks.{whole.down[-1].index}.attentions.0"
    if whole.mid is not None:
        found.append(mid_group(whole.mid, ways.get(tied), costs))
        taken.add(tied)
    return found + [best(options) for path, options in ways.items() if path not in taken]


def thinned(path: str, blocks: tuple[int, ...], costs: Costs) -> list[Option]:
    """Return the best way to take 0, 1, 2 ... blocks out of one attention: those that matter least go first."""
    ranked = sorted((block(path, i) for i in blocks), key=lambda piece: costs.error[piece.name])
    return [costs.option(*ranked[:count]) for count in range(len(ranked))]


def mid_group(mid: tuple[int, ...], tied: list[Option] | None, costs: Costs) -> list[Option]:
    """Return the ways to treat the mid block together with the attention that must be as deep as its own."""
    without_attention = [costs.option(MID)] + ([costs.option(MID_ATTENTION)] if mid else [NOTHING])
    thin = thinned(MID_PATH, mid, costs)
    if tied is None:
        return best([*without_attention, *thin])
    free = [one + other for one in without_attention for other in tied]
    deep = len(tied)  # options[i] takes i of them out, and one stays in the last
    together = [one + tied[i] for count, one in enumerate(thin) if 0 <= (i := deep - (len(mid) - count)) < deep]
    return best([*free, *together])


def merge(one: list[Option], other: list[Option]) -> list[Option]:
    return best(a + b for a, b in product(one, other))


def best(options: Iterable[Option]) -> list[Option]:
    """Return the frontier: the options that save more than all options with as little error."""
    frontier: list[Option] = []
    for option in sorted(options, key=lambda option: (option.error, -option.saved)):
        if not frontier or option.saved > frontier[-1].saved:
            frontier.append(option)
    return frontier


def keep_map(whole: KeepMap, gone: Iterable[Piece]) -> KeepMap:
    """Return the keep map that is left without the pieces.

    Raises:
        ValueError: the mid block's attention would be left empty.
    """
    paths = {path for piece in gone for path in piece.modules}

    def left(part: str, before: Block) -> Block:
        where = f"{part}_blocks.{before.index}"
        return Block(
            before.index,
            tuple(
                replace(each, blocks=each.blocks and thin(f"{where}.attentions.{each.index}", each.blocks))
                for each in before.layers
                if f"{where}.resnets.{each.index}" not in paths
            ),
        )

    def thin(path: str, blocks: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(i for i in blocks if f"{path}.transformer_blocks.{i}" not in paths)

    mid = whole.mid and thin(MID_PATH, whole.mid)
    if "mid_block" in paths:
        mid = None
    elif MID_PATH in paths:
        mid = ()
    elif whole.mid and not mid:
        raise ValueError("the last transformer block of the mid block goes with its attention and second resnet only")
    return KeepMap(tuple(left("down", each) for each in whole.down), mid, tuple(left("up", each) for each in whole.up))
