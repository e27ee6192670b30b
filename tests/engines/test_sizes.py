"""One graph, any size: UNet, VAE decoder and encoder on every backend against torch."""

import pytest
import torch

from ssd1b.engines.bundle import Bundle
from ssd1b.engines.checks import random_adapter
from ssd1b.engines.graph import VaeDecoder, VaeEncoder, call, example_rows
from ssd1b.models.files import load_unet, load_vae
from ssd1b.sampling.decode import to_pictures

SIZES = ((16, 16), (24, 12), (13, 19))
"""Height and width of the latents: a square, a portrait, and odd ones, which no level of the UNet halves."""
BACKENDS = ("onnxruntime", "openvino")


@pytest.mark.parametrize("backend", ["torch", *BACKENDS])
def test_the_unet_takes_any_size(tiny_bundle, backend):
    bundle = Bundle.load(tiny_bundle.folder, backend)
    engine, reference = bundle.engine("f32"), Bundle.load(tiny_bundle.folder, "torch").engine()
    for one in (engine, reference):
        one.load_adapter(1, random_adapter(one))
    unet = load_unet(str(tiny_bundle.folder))
    assert engine.device == torch.device("cpu")
    for batch, latent in enumerate(SIZES, start=1):
        rows = example_rows(unet, 32, batch, latent)
        with torch.no_grad():
            torch.testing.assert_close(engine(*rows), call(unet, *rows[:5]), atol=1e-4, rtol=0)
        slotted = (*rows[:5], torch.arange(batch) % 2, rows[6])
        torch.testing.assert_close(engine(*slotted), reference(*slotted), atol=1e-4, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_vae_takes_any_size(tiny_bundle, backend):
    bundle, vae = Bundle.load(tiny_bundle.folder, backend), load_vae(str(tiny_bundle.folder))
    for batch, (height, width) in enumerate(SIZES, start=1):
        latents = torch.randn(batch, 4, height, width)
        pixels = torch.rand(batch, 3, 8 * height, 8 * width) * 2 - 1
        with torch.no_grad():
            wanted = to_pictures(VaeDecoder(vae)(latents))
            moments = VaeEncoder(vae)(pixels)
        assert (bundle.decode(latents).int() - wanted.int()).abs().max() <= 1
        for ours, theirs in zip(bundle.encode(pixels), moments, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_the_encoders_of_torch_agree(tiny_bundle):
    pixels = torch.rand(2, 3, 128, 96) * 2 - 1
    with torch.no_grad():
        wanted = VaeEncoder(load_vae(str(tiny_bundle.folder)))(pixels)
    for ours, theirs in zip(Bundle.load(tiny_bundle.folder, "torch").encode(pixels), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
