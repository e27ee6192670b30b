"""The LoRA bank: what goes in, what is refused, and that a refusal leaves the slot alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssd1b.adapters.adapter import Adapter, LayerShape
from ssd1b.engines.bank import Bank, Layout

SHAPES = {"b.to_q": LayerShape(8, 8), "a.to_q": LayerShape(8, 8), "a.to_k": LayerShape(6, 8)}
CONVOLUTION = LayerShape(5, 7, 3, 2)


def adapter(rank=2, layers=SHAPES):
    """Layers of noise."""
    return {path: (torch.randn(s.fan_in, rank), torch.randn(rank, s.outside)) for path, s in layers.items()}


def bank():
    return Bank(Layout.of(SHAPES), slots=3, rank=4)


def test_layout_is_grouped_by_shape_whatever_the_order():
    layout = Layout.of(SHAPES)
    assert [(group.name, group.paths) for group in layout.groups] == [
        ("6x8", ("a.to_k",)),
        ("8x8", ("a.to_q", "b.to_q")),
    ]
    assert layout == Layout.of(dict(reversed(SHAPES.items())))
    assert layout.shapes == SHAPES


def test_an_adapter_lies_in_its_slot_padded_with_zeros():
    held, style = bank(), adapter()
    held.put(2, style)
    a, b = style["b.to_q"]
    assert torch.equal(held.arrays[2][2, 1, :, :2], a)
    assert torch.equal(held.arrays[3][2, 1, :2], b)
    assert not held.arrays[2][2, 1, :, 2:].any()
    assert not any(array[slot].any() for array in held.arrays for slot in (0, 1))


def test_none_empties_and_a_smaller_adapter_leaves_nothing_of_the_last():
    held = bank()
    held.put(1, adapter(rank=4))
    small = adapter(rank=1, layers={"a.to_k": LayerShape(6, 8)})
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
        (1, adapter(layers={"c.to_q": LayerShape(8, 8)}), "c.to_q .* no such layer"),
        (1, adapter(layers={"a.to_q": LayerShape(8, 9)}), "8 to 9; this engine has 8 to 8"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(slot, wrong, message):
    held = bank()
    held.put(1, adapter())
    before = [array.clone() for array in held.arrays]
    with pytest.raises(ValueError, match=message):
        held.put(slot, wrong)
    assert all(map(torch.equal, before, held.arrays))


def test_a_convolution_has_a_matrix_for_every_position_of_its_kernel():
    held = Bank(Layout.of(SHAPES | {"down": CONVOLUTION}), slots=2, rank=4)
    assert [group.name for group in held.layout.groups] == ["5x7k3s2", "6x8", "8x8"]
    assert held.arrays[0].shape == (2, 1, 9, 4, 5)
    kernel_RIYX = torch.randn(3, 5, 3, 3)
    held.put(1, {"down": (kernel_RIYX.flatten(1).T, torch.ones(3, 7))})
    for k in range(9):
        assert torch.equal(held.arrays[0][1, 0, k, :3], kernel_RIYX[:, :, k // 3, k % 3])


@given(
    seed=st.integers(0, 2**16),
    ranks=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    weights=st.permutations([1.0, -0.5, 0.25]),
)
def test_a_composite_is_the_sum(seed, ranks, weights):
    torch.manual_seed(seed)
    parts = [
        (Adapter(str(i), adapter(rank), (adapter(rank),) * (i % 2)), weight)
        for i, (rank, weight) in enumerate(zip(ranks, weights, strict=False))
    ]
    made = Adapter.combine(parts)
    assert made.rank == sum(ranks)
    for path in SHAPES:
        whole = sum(weight * (part.layers[path][0] @ part.layers[path][1]) for part, weight in parts)
        torch.testing.assert_close(made.layers[path][0] @ made.layers[path][1], whole)
        of_text = [weight * (part.text[0][path][0] @ part.text[0][path][1]) for part, weight in parts if part.text]
        if of_text:
            torch.testing.assert_close(made.text[0][path][0] @ made.text[0][path][1], sum(of_text))


def test_nothing_to_combine_is_refused():
    with pytest.raises(ValueError, match="no adapters to combine"):
        Adapter.combine([])


@given(seed=st.integers(0, 2**16), rank=st.integers(1, 6))
def test_truncation_is_the_nearest_of_its_rank(seed, rank):
    """The distance is what the singular values left out say."""
    torch.manual_seed(seed)
    style = Adapter("style", adapter(rank=5))
    small = style.truncated(rank)
    assert small.rank == min(rank, 5)
    for path, (a, b) in style.layers.items():
        wanted, made = a @ b, small.layers[path][0] @ small.layers[path][1]
        left_out = torch.linalg.svdvals(wanted)[rank:].square().sum().sqrt()
        torch.testing.assert_close((wanted - made).norm(), left_out, atol=1e-4, rtol=1e-3)
