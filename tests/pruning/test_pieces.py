"""Pieces: skipping one in place is the same as carving it out."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from ssd1b.family.carve import carve
from ssd1b.family.carve import parameters as size
from ssd1b.family.keep import everything, student_config
from ssd1b.family.measure import example, native_size
from ssd1b.family.table import FAMILY, new_unet
from ssd1b.pruning.choose import keep_map
from ssd1b.pruning.pieces import MID, MID_ATTENTION, Piece, block, parameters, pieces, without
from ssd1b.pruning.sensitivity import error, outputs, sensitivities

MEMBERS = ["nano-sdxl", "nano-ssd-1b", "nano-koala-1b", "nano-sd-1.5"]


@pytest.fixture(scope="module")
def unets() -> dict[str, UNet2DConditionModel]:
    torch.manual_seed(4)
    return {name: new_unet(name).eval() for name in MEMBERS}


def ask(unet: UNet2DConditionModel) -> dict[str, object]:
    torch.manual_seed(7)
    return example(unet, native_size(unet.config), rows=2)


def samples(unet: UNet2DConditionModel) -> list[list[Piece]]:
    """Pieces that can go alone, one of every kind and place, and several together."""
    whole = everything(unet.config)
    alone = {}
    for piece in pieces(whole):
        kind = piece.name.rpartition(".transformer_blocks.")[0] or piece.name
        alone[kind] = [piece]  # the last of each attention
    return [*alone.values(), [each for group in alone.values() for each in group if "transformer" in each.name]]


@pytest.mark.parametrize("name", MEMBERS)
def test_skipping_pieces_is_carving_them(unets: dict[str, UNet2DConditionModel], name: str) -> None:
    unet = unets[name]
    whole = everything(unet.config)
    asked = ask(unet)
    before = outputs(unet, [asked])[0]
    proven = 0
    for gone in samples(unet):
        try:
            kept = keep_map(whole, gone)
            student_config(unet.config, kept)
        except ValueError:
            continue  # not one that diffusers can build: nothing left, or a depth tied to another's
        with without(unet, gone):
            skipped = outputs(unet, [asked])[0]
        student = carve(unet, kept)
        assert torch.equal(outputs(student, [asked])[0], skipped), gone
        assert not torch.equal(skipped, before), gone
        assert size(student) == size(unet) - sum(parameters(unet, piece) for piece in gone)
        proven += 1
    assert proven >= 3
    assert torch.equal(outputs(unet, [asked])[0], before), "the UNet was left changed"


def test_sdxl_has_75_pieces() -> None:
    found = pieces(everything(FAMILY["sdxl"]))
    assert len({piece.name for piece in found}) == len(found) == 70 + 2 + 3
    assert MID in found
    assert MID_ATTENTION in found
    assert found[0] == block("down_blocks.1.attentions.0", 0)
    layers = [piece for piece in found if piece.name.startswith("layer")]
    assert [len(piece.modules) for piece in layers] == [2, 4, 4]


def test_a_piece_that_does_nothing_is_not_missed(unets: dict[str, UNet2DConditionModel]) -> None:
    unet = unets["nano-sd-1.5"]
    idle = block("down_blocks.1.attentions.0", 0)
    module = unet.get_submodule(idle.name)
    kept = {name: weight.clone() for name, weight in module.state_dict().items()}
    with torch.no_grad():
        for linear in (module.attn1.to_out[0], module.attn2.to_out[0], module.ff.net[2]):
            linear.weight.zero_()
            linear.bias.zero_()
    busy = block("up_blocks.1.attentions.0", 0)
    seen: list[tuple[int, int]] = []
    found = sensitivities(unet, [idle, busy], [ask(unet), ask(unet)], lambda *done: seen.append(done))
    module.load_state_dict(kept)
    assert found[idle.name] == 0
    assert found[busy.name] > 0
    assert seen == [(1, 2), (2, 2)]


def test_errors_are_relative_and_finite() -> None:
    ones = [torch.ones(1, 2), torch.ones(1, 2)]
    assert error([2 * each for each in ones], ones) == 1
    assert error(ones, ones) == 0
    with pytest.raises(ValueError, match="cannot be compared"):
        error([torch.full((1, 2), torch.inf)], ones[:1])
    with pytest.raises(ValueError, match="cannot be compared"):
        error(ones, [torch.zeros(1, 2)] * 2)
