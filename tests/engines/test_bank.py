"""The LoRA bank: what goes in, what is refused, and that a refusal leaves the slot alone."""

import pytest
import torch

from ssd1b.adapters.adapter import Adapter
from ssd1b.engines.bank import Bank, Layout

SHAPES = {"b.to_q": (8, 8), "a.to_q": (8, 8), "a.to_k": (6, 8)}


def adapter(rank=2, layers=SHAPES):
    return Adapter("style", {path: (torch.randn(i, rank), torch.randn(rank, o)) for path, (i, o) in layers.items()})


def bank():
    return Bank(Layout.of(SHAPES), slots=3, rank=4)


def test_layout_is_grouped_by_shape_whatever_the_order():
    layout = Layout.of(SHAPES)
    assert [(group.inside, group.outside, group.paths) for group in layout.groups] == [
        (6, 8, ("a.to_k",)),
        (8, 8, ("a.to_q", "b.to_q")),
    ]
    assert layout == Layout.of(dict(reversed(SHAPES.items())))
    assert layout.shapes == SHAPES


def test_an_adapter_lies_in_its_slot_padded_with_zeros():
    held, style = bank(), adapter()
    held.put(2, style)
    a, b = style.layers["b.to_q"]
    assert torch.equal(torch.from_numpy(held.arrays[2][2, 1, :, :2]), a)
    assert torch.equal(torch.from_numpy(held.arrays[3][2, 1, :2]), b)
    assert not held.arrays[2][2, 1, :, 2:].any()
    assert not any(array[slot].any() for array in held.arrays for slot in (0, 1))


def test_none_empties_and_a_smaller_adapter_leaves_nothing_of_the_last():
    held = bank()
    held.put(1, adapter(rank=4))
    small = adapter(rank=1, layers={"a.to_k": (6, 8)})
    held.put(1, small)
    assert sum((array[1] != 0).sum() for array in held.arrays) == 6 + 8
    held.put(1, None)
    assert not any(array.any() for array in held.arrays)


@pytest.mark.parametrize(
    ("slot", "wrong", "message"),
    [
        (0, adapter(), "slots 1 to 2"),
        (3, adapter(), "slots 1 to 2"),
        (1, adapter(rank=5), "has rank 5, this engine holds up to 4"),
        (1, adapter(layers={"c.to_q": (8, 8)}), "c.to_q .* no such layer"),
        (1, adapter(layers={"a.to_q": (8, 9)}), r"8 to 9; this engine has \(8, 8\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(slot, wrong, message):
    held = bank()
    held.put(1, adapter())
    before = [array.copy() for array in held.arrays]
    with pytest.raises(ValueError, match=message):
        held.put(slot, wrong)
    assert all((old == new).all() for old, new in zip(before, held.arrays, strict=True))
