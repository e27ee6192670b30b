"""The preview map of a VAE that comes without one, fitted to the shipped corpus."""

import torch
from diffusers import AutoencoderKL

from ssd1b.pretraining.pictures import read_pictures
from ssd1b.sampling.decode import Decoder
from ssd1b.sampling.preview import Preview, fit
from ssd1b.sampling.vae import Vae

PICTURES = 256
"""Spread over the corpus: 65,536 latent positions for a map of 15 numbers."""


def preview_of(vae: AutoencoderKL, batch: int = 16) -> Preview:
    """Return the map from this VAE's latents to colours (see `ssd1b.sampling.preview`)."""
    pixels_NCHW = read_pictures().pixels_NCHW
    chosen_NCHW = pixels_NCHW[:: len(pixels_NCHW) // PICTURES][:PICTURES].float() / 127.5 - 1
    encode = Vae(vae, torch.float32).posterior
    means = [encode(chosen_NCHW[i : i + batch])[0] for i in range(0, PICTURES, batch)]
    return fit(Decoder(vae), torch.cat(means), batch)
