"""The choice is the best there is: checked against trying everything."""

import random
from itertools import chain, combinations

import pytest

from ssd1b.family.keep import KeepMap, everything, student_config
from ssd1b.family.table import FAMILY, SDXL
from ssd1b.pruning.choose import Costs, choose, keep_map
from ssd1b.pruning.pieces import Piece, pieces

SMALL = SDXL | {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640),
    "attention_head_dim": (5, 10),
    "transformer_layers_per_block": (1, 1),
}
"""Few enough pieces to try all sets of them."""
TIED = SDXL | {"transformer_layers_per_block": (1, 1, 3), "layers_per_block": 1}
FLAT = FAMILY["sd-1.5"] | {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (320, 640),
}


def made_up(whole: KeepMap, seed: int) -> Costs:
    draw = random.Random(seed)
    found = pieces(whole)
    errors = {piece.name: draw.random() for piece in found}
    blocks = {piece.name: 10 if "attentions.0" in piece.name else 7 for piece in found}
    sizes = {}
    for piece in found:
        within = [name for name in blocks if any(name.startswith(f"{path}.") for path in piece.modules)]
        sizes[piece.name] = blocks[piece.name] if "transformer" in piece.name else 3 + sum(blocks[n] for n in within)
    return Costs(1000, sizes, errors)


def every(config: dict[str, object]) -> list[tuple[KeepMap, tuple[Piece, ...]]]:
    """All sets of pieces that leave something diffusers can build, none within another."""
    whole = everything(config)
    found = []
    all_pieces = pieces(whole)
    for gone in chain.from_iterable(combinations(all_pieces, count) for count in range(len(all_pieces) + 1)):
        paths = [path for piece in gone for path in piece.modules]
        if any(a != b and a.startswith(f"{b}.") for a in paths for b in paths) or len(set(paths)) < len(paths):
            continue
        try:
            kept = keep_map(whole, gone)
            student_config(config, kept)
        except ValueError:
            continue
        found.append((kept, gone))
    return found


@pytest.mark.parametrize("config", [SMALL, TIED, FLAT], ids=["small", "tied", "flat"])
def test_no_other_choice_within_the_budget_has_less_error(config: dict[str, object]) -> None:
    whole = everything(config)
    possible = every(config)
    assert len(possible) > 10
    for seed in range(3):
        costs = made_up(whole, seed)
        tried = [costs.option(*gone) for _, gone in possible]
        least = min(1000 - option.saved for option in tried)
        for budget in (1000, 990, 970, (1000 + least) // 2, least):
            chosen = choose(whole, costs, budget)
            assert 1000 - chosen.saved <= budget
            assert chosen.error == pytest.approx(min(o.error for o in tried if 1000 - o.saved <= budget))
            assert student_config(config, keep_map(whole, chosen.gone))
        with pytest.raises(ValueError, match=f"no student of {least - 1:,} parameters.*the least is {least:,}"):
            choose(whole, costs, least - 1)


def test_sdxl_is_chosen_for_in_a_moment_and_exactly_within_any_budget() -> None:
    whole = everything(SDXL)
    costs = made_up(whole, 1)
    errors = []
    for budget in range(450, 1001, 50):
        chosen = choose(whole, costs, budget)
        assert 1000 - chosen.saved <= budget
        errors.append(chosen.error)
        assert student_config(SDXL, keep_map(whole, chosen.gone))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0
