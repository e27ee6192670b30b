"""An encoder in fp16: what overflows is encoded in float32, what cannot be encoded is counted and never stored."""

from collections import Counter

import numpy as np
import pytest
import torch

from ssd1b.corpus import encoder
from ssd1b.corpus.encoder import PartEncoder
from ssd1b.models.files import load_vae
from ssd1b.recipes.encode import Encode

CONFIG = Encode(name="t", manifest="t", model="nano", dtype="float16")


def rows(count=2):
    generator = np.random.default_rng(0)
    return [{"sample_id": i, "pixels": generator.integers(0, 256, (64, 64, 3), np.uint8)} for i in range(count)]


def encoded(monkeypatch, vae, config=CONFIG):
    """Return the stored means as float32, and the counts."""
    monkeypatch.setattr(encoder, "load_vae", lambda _model: vae)
    threads = torch.get_num_threads()
    made, tally = PartEncoder(config), Counter()
    kept = list(made.encode(rows(), tally))
    torch.set_num_threads(threads)
    return [np.frombuffer(row["mean"], np.float16).astype(np.float32) for row in kept], tally


def test_an_overflow_is_encoded_in_float32(monkeypatch, caplog):
    vae = load_vae("nano")
    convolution = vae.encoder.down_blocks[1].resnets[0].conv1
    with torch.no_grad():  # beyond fp16; the GroupNorm behind it takes the scale out
        convolution.weight *= 1e5
        convolution.bias *= 1e5
    made, tally = encoded(monkeypatch, vae)
    wanted, _ = encoded(monkeypatch, load_vae("nano"), Encode(name="t", manifest="t", model="nano"))
    assert "overflows" in caplog.text
    assert not tally
    np.testing.assert_allclose(made, wanted, atol=2e-2)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_cannot_be_encoded_is_counted(monkeypatch, dtype):
    vae = load_vae("nano")
    with torch.no_grad():
        vae.quant_conv.bias[-1] = torch.inf
    made, tally = encoded(monkeypatch, vae, Encode(name="t", manifest="t", model="nano", dtype=dtype))
    assert made == []
    assert tally == {"latents_not_finite": 2}


def test_a_vae_that_says_it_overflows_runs_in_float32(monkeypatch):
    vae = load_vae("nano")
    vae.register_to_config(force_upcast=True)
    made, _ = encoded(monkeypatch, vae)
    wanted, _ = encoded(monkeypatch, load_vae("nano"), Encode(name="t", manifest="t", model="nano"))
    np.testing.assert_array_equal(made, wanted)
