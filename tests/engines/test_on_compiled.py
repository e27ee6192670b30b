"""Buckets, padding and buffers of the compiled engine, on its CPU twin; on a GPU the captured graphs."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st

from ssd1b.engines import on_compiled
from ssd1b.engines.checks import random_adapter
from ssd1b.engines.graph import example_rows
from ssd1b.engines.on_compiled import BUCKETS, CompiledEngine, bucket_of, compiled_by_shape, pad
from ssd1b.engines.on_torch import TorchEngine
from ssd1b.family.table import FAMILY

ONE_LEVEL = {
    "block_out_channels": (32, 64),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 1),
    "attention_head_dim": (1, 2),
    "layers_per_block": 1,
}


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return UNet2DConditionModel(**FAMILY["nano-sdxl"] | ONE_LEVEL).eval()


def rows_of(unet, batch, slots=(0,), latent=None, tokens=8):
    rows = example_rows(unet, tokens, batch, latent)
    return (*rows[:5], torch.tensor([slots[i % len(slots)] for i in range(batch)]), rows[6])


def test_every_shape_is_compiled_of_every_engine():
    """Torch's own limit of eight would leave the others uncompiled."""
    compiled = []

    def backend(graph, inputs):
        compiled.append(tuple(inputs[0].shape))
        return graph.forward

    class Doubler:
        def __init__(self, by):
            self.by = by

        def run(self, buffers, sides):
            return buffers[0] * self.by if sides else buffers[0] + self.by

    shapes = [(rows, size) for rows in BUCKETS for size in (8, 16, 24)]
    for by in (2.0, 3.0):
        inside = compiled_by_shape(Doubler(by).run, backend)
        for shape in shapes:
            assert torch.equal(inside([torch.ones(shape)], True), torch.full(shape, by))
    assert sorted(compiled) == sorted(shapes * 2)


@given(rows=st.integers(1, BUCKETS[-1]))
def test_the_bucket_is_the_smallest_that_holds_the_rows(rows):
    bucket = bucket_of(rows)
    assert bucket in BUCKETS
    assert bucket >= rows
    assert not any(rows <= smaller < bucket for smaller in BUCKETS)
    row_B = torch.arange(rows * 3).reshape(rows, 3)
    padded = pad(row_B, bucket)
    assert torch.equal(padded[:rows], row_B)
    assert padded.shape == (bucket, 3)
    assert (padded[rows:] == row_B[0]).all()


@pytest.mark.parametrize("rows", [0, BUCKETS[-1] + 1])
def test_no_bucket_holds_that(rows):
    with pytest.raises(ValueError, match=f"{rows} rows: a call has 1 to {BUCKETS[-1]}"):
        bucket_of(rows)


@pytest.mark.parametrize("batch", [1, 3, 5])
@pytest.mark.parametrize("slots", [(0,), (0, 1, 2)])
def test_padding_changes_no_row(unet, batch, slots):
    """Bit for bit the rows of a batch that fills the bucket, and to rounding those of the eager engine."""
    engine, eager = CompiledEngine(unet, slots=3, rank=2), TorchEngine(unet, slots=3, rank=2)
    for slot in (1, 2):
        for one in (engine, eager):
            one.load_adapter(slot, random_adapter(one, seed=slot))
    rows = rows_of(unet, batch, slots)
    made = engine(*rows)
    full = engine(*(pad(row, bucket_of(batch)) for row in rows))
    assert torch.equal(made, full[:batch])
    torch.testing.assert_close(made, eager(*rows), atol=1e-5, rtol=0)
    assert {key[0] for key in engine.graphs} == {bucket_of(batch)}


def test_what_a_call_returned_is_not_overwritten_by_the_next(unet):
    engine = CompiledEngine(unet)
    first, second = rows_of(unet, 2), rows_of(unet, 2)
    second = (second[0] * 2, *second[1:])
    made = engine(*first)
    before = made.clone()
    other = engine(*second)
    assert torch.equal(made, before)
    assert not torch.equal(other, made)


def test_a_graph_for_every_shape_and_the_oldest_goes(unet, monkeypatch):
    monkeypatch.setattr(on_compiled, "GRAPHS", 2)
    engine = CompiledEngine(unet)
    for latent in ((8, 8), (8, 16), (8, 8), (9, 11)):
        engine(*rows_of(unet, 1, latent=latent))
    assert [key[1:3] for key in engine.graphs] == [(8, 8), (9, 11)]


def test_a_batch_beyond_the_last_bucket_goes_in_parts(unet, monkeypatch):
    monkeypatch.setattr(on_compiled, "BUCKETS", (1, 2))
    rows = rows_of(unet, 5, latent=(4, 4))
    torch.testing.assert_close(CompiledEngine(unet)(*rows), TorchEngine(unet)(*rows), atol=1e-5, rtol=0)


def test_filling_a_slot_shows_in_the_next_call(unet):
    """The bank is read where it lies, not copied when a graph is made."""
    engine = CompiledEngine(unet, slots=3, rank=2)
    rows = rows_of(unet, 2, (1, 0), latent=(4, 4))
    empty = engine(*rows)
    engine.load_adapter(1, random_adapter(engine))
    filled = engine(*rows)
    assert not torch.equal(filled[0], empty[0])
    assert torch.equal(filled[1], empty[1])
    assert len(engine.graphs) == 1
    engine.load_adapter(1, None)
    assert torch.equal(engine(*rows), empty)


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_captured_graphs_are_the_eager_engine(unet, compiled):
    import copy

    on_gpu = copy.deepcopy(unet).cuda()
    engine, eager = CompiledEngine(on_gpu, slots=3, rank=2, compiled=compiled), TorchEngine(on_gpu, slots=3, rank=2)
    for one in (engine, eager):
        one.load_adapter(1, random_adapter(one))
    for latent in ((8, 8), (8, 16)):
        for batch in (1, 3):
            rows = [row.cuda() for row in rows_of(unet, batch, (0, 1), latent)]
            for _ in range(2):  # captured, then replayed
                torch.testing.assert_close(engine(*rows), eager(*rows), atol=1e-3, rtol=0)
