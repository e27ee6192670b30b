"""Keep maps: anatomy, composition, and what diffusers can and cannot build."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd1b.family.carve import keep_map
from ssd1b.family.keep import (
    PARTS,
    Block,
    KeepMap,
    Layer,
    depths,
    everything,
    read_keep_map,
    student_config,
)  # fmt: skip
from ssd1b.family.table import FAMILY

SDXL = FAMILY["sdxl"]
WHOLE = everything(SDXL)


@st.composite
def maps(draw: st.DrawFn, whole: KeepMap = WHOLE) -> KeepMap:
    """Any keep map of the whole that diffusers can build."""

    def some(of: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(draw(st.sets(st.sampled_from(of), min_size=1))))

    def blocks(kept: tuple[Block, ...], counts: list[int], up: bool) -> tuple[Block, ...]:
        made = []
        for block, count in zip(kept, counts, strict=True):
            first = block.layers[:count]
            layers = (*block.layers[: count - 1], block.layers[-1]) if up else first
            made.append(Block(block.index, tuple(
                Layer(layer.index, None if layer.blocks is None else some(layer.blocks)) for layer in layers
            )))  # fmt: skip
        return tuple(made)

    counts = [draw(st.integers(1, len(block.layers))) for block in whole.down]
    down = blocks(whole.down, counts, up=False)
    up = blocks(whole.up, [count + 1 for count in reversed(counts)], up=True)
    deep = depths(down[-1])[0]
    mids: list[tuple[int, ...] | None] = [None]
    if whole.mid is not None:
        mids += [(), whole.mid[:deep]] if len(whole.mid) >= deep else [()]
    return KeepMap(down, draw(st.sampled_from(mids)), up)


@pytest.mark.parametrize("name", FAMILY)
def test_keeping_everything_gives_the_config_back(name: str) -> None:
    assert student_config(FAMILY[name], everything(FAMILY[name])) == FAMILY[name]


@given(maps())
def test_the_student_of_a_map_has_the_maps_anatomy(kept: KeepMap) -> None:
    left = everything(student_config(SDXL, kept))
    assert left.after(KeepMap(kept.down, kept.mid, kept.up)) == kept
    assert (left.depth, left.resnets) == (kept.depth, kept.resnets)
    assert kept.inside(WHOLE) == kept
    assert kept.inside(kept) == left


@given(st.data())
def test_two_maps_in_turn_are_one(data: st.DataObject) -> None:
    first = data.draw(maps())
    second = data.draw(maps(everything(student_config(SDXL, first))))
    both = second.after(first)
    assert both.inside(first) == second
    assert student_config(student_config(SDXL, first), second) == student_config(SDXL, both)
    name = "up_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    assert first.teacher_name(second.teacher_name(name)) == both.teacher_name(name)


@given(maps())
def test_a_map_survives_its_file(kept: KeepMap) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder) / "keep_map.json"
        path.write_text(json.dumps(dataclasses.asdict(kept)))
        assert read_keep_map(path) == kept


def test_ssd_1bs_config_comes_out_as_published() -> None:
    config = student_config(SDXL, keep_map(SDXL, "ssd-1b"))
    assert config["transformer_layers_per_block"] == [[1], [2, 2], [4, 4]]
    assert config["reverse_transformer_layers_per_block"] == [[4, 4, 10], [2, 1, 1], 1]
    assert config["mid_block_type"] == "UNetMidBlock2D"


@pytest.mark.parametrize("part", PARTS)
def test_parts_can_be_carved_one_by_one(part: str) -> None:
    kept = keep_map(SDXL, "ssd-1b").only((part,), WHOLE)
    for other in PARTS:
        assert (getattr(kept, other) == getattr(WHOLE, other)) == (other != part)


def test_maps_that_cannot_be_built_say_why() -> None:
    target = keep_map(SDXL, "ssd-1b")
    with pytest.raises(ValueError, match="no part 'middle' to carve: choose from mid, down, up"):
        target.only(("middle",), WHOLE)
    with pytest.raises(ValueError, match=r"mid block would keep 10 .* last way down 4.*carve 'mid' to one resnet"):
        student_config(SDXL, target.only(("down",), WHOLE))
    koala = keep_map(SDXL, "koala-1b")
    with pytest.raises(ValueError, match=r"level 0 would have 1 layers down and 3 up.*together"):
        student_config(SDXL, koala.only(("mid", "down"), WHOLE))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mid": (0, 3, 2)}, r"mid_block transformer blocks: the map keeps \[0, 3, 2\] of 10: give rising indices"),
        ({"mid": (10,)}, r"keeps \[10\] of 10: give rising indices from 0 to 9"),
        ({"down": WHOLE.down[1:]}, "only innermost levels can go"),
        ({"down": (), "up": ()}, "only innermost levels can go"),
        ({"down": (Block(0, (Layer(0, (0,)), Layer(1))), *WHOLE.down[1:])}, r"the map has \(0,\), the UNet has None"),
        ({"down": (*WHOLE.down[:2], Block(2, (Layer(0, ()), Layer(1, (0,)))))}, r"keeps \[\] of 10"),
    ],
)  # fmt: skip
def test_maps_that_keep_what_is_not_there_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        student_config(SDXL, dataclasses.replace(WHOLE, **change))


def test_what_is_gone_cannot_be_kept() -> None:
    first = keep_map(SDXL, "ssd-1b")
    with pytest.raises(ValueError, match=r"mid_block transformer block 0 is gone already: \[\] are left"):
        WHOLE.inside(first)


def test_a_file_that_is_no_keep_map_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no keep map at .*nowhere\.json"):
        read_keep_map(tmp_path / "nowhere.json")
    (tmp_path / "odd.json").write_text('{"down": [], "mid": "all"}')
    with pytest.raises(ValueError, match=r"odd\.json is no keep map: (mid|up)"):
        read_keep_map(tmp_path / "odd.json")


def test_unets_of_other_families_are_refused() -> None:
    with pytest.raises(ValueError, match="AttnDownBlock2D is not of this family"):
        everything(SDXL | {"down_block_types": ("AttnDownBlock2D",) * 3})
