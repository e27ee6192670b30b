"""The preview map against the decoder it stands in for."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ssd1b.corpus import shipped
from ssd1b.models.files import NANO, load_vae
from ssd1b.sampling.decode import Decoder
from ssd1b.sampling.preview import FILE, Preview, averaged, fit
from ssd1b.sampling.vae import Vae

FITTED, HELD_OUT = 84, 14
"""Pictures of the shipped corpus, evenly taken: to fit from, and between them to look at."""


@pytest.fixture(scope="module")
def latents():
    """Latents of drawings: (FITTED, ...), (HELD_OUT, ...)."""
    rows = pq.read_table(shipped.PATH, columns=["image"])
    places = np.linspace(0, len(rows) - 1, FITTED + HELD_OUT).astype(int)
    images = [Image.open(io.BytesIO(rows["image"][int(i)].as_py())).convert("RGB") for i in places]
    pixels = torch.stack([torch.from_numpy(np.asarray(image).copy()) for image in images]).movedim(-1, 1)
    vae = Vae(load_vae("nano"))
    mean = torch.cat([vae.posterior(part / 127.5 - 1)[0] for part in pixels.split(14)])
    held_out = torch.arange(len(mean)) % 7 == 3
    return mean[~held_out], mean[held_out]


@pytest.fixture(scope="module")
def decode():
    return Decoder.load(NANO)


def test_the_shipped_map_gives_the_colours_that_fit_makes(latents, decode):
    """It was fitted to other pictures of the corpus; the two are compared by their colours, in levels of 255."""
    made, shipped_map = (each(latents[1]).float() for each in (fit(decode, latents[0]), Preview.load(NANO)))
    apart = (made - shipped_map).square().mean().sqrt()
    assert apart < 4


def test_a_preview_looks_like_the_picture(latents, decode):
    """On pictures that were not fitted to: measured 20.4 dB, and correlations of 0.91, 0.97 and 0.95 a colour."""
    wanted = averaged(decode(latents[1]), latents[1].shape[-1])
    made = Preview.load(NANO)(latents[1]).flatten(0, 2).float()
    assert 10 * torch.log10(255**2 / (made - wanted).square().mean()) > 18.5
    for colour in range(3):
        assert torch.corrcoef(torch.stack([made[:, colour], wanted[:, colour]]))[0, 1] > 0.9


def test_it_is_one_pixel_a_latent_position(latents):
    made = Preview.load(NANO)(latents[1][:2])
    assert (made.shape, made.dtype) == ((2, 16, 16, 3), torch.uint8)


def test_a_linear_decoder_is_found_again(tmp_path):
    """Through the file too; colours outside 0 to 255 are cut off, so those here stay within."""
    weight_C3, bias_3 = torch.tensor([[10.0, 0, 2], [0, -20, 0], [5, 5, 5], [0, 3, 8]]), torch.tensor([100.0, 128, 90])

    def decode(latents_BCHW):
        colours = (latents_BCHW.movedim(1, -1) @ weight_C3 + bias_3).round().clamp(0, 255)
        return colours.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2).to(torch.uint8)

    latents_BCHW = torch.randn(40, 4, 8, 8, generator=torch.Generator().manual_seed(1)).clamp(-2, 2)
    (tmp_path / FILE).parent.mkdir()
    fit(decode, latents_BCHW).save(tmp_path)
    made = Preview.load(tmp_path)
    torch.testing.assert_close(made.weight_C3, weight_C3, rtol=0, atol=0.1)
    torch.testing.assert_close(made.bias_3, bias_3, rtol=0, atol=0.1)
    assert ((made(latents_BCHW).int() - decode(latents_BCHW)[:, ::8, ::8].int()).abs() <= 1).all()


def test_what_cannot_be(tmp_path, decode):
    with pytest.raises(ValueError, match=r"has no vae/preview.json: make it with ssd1b.sampling.preview.fit"):
        Preview.load(tmp_path)
    with pytest.raises(ValueError, match="4 latent positions"):
        fit(decode, torch.zeros(1, 4, 2, 2))
