"""Latents to pictures: the VAE decoder in torch."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from ssd1b.family.files import load_vae

# B batch, C latent channels, H W latent size; pictures are (B, height, width, 3)


class Decoder:
    """The VAE of one model, on the device and in the precision it comes with."""

    def __init__(self, vae: AutoencoderKL) -> None:
        self.vae = vae.eval()

    @staticmethod
    def load(folder: Path) -> "Decoder":
        """Read the VAE of a folder in diffusers layout, float32."""
        return Decoder(load_vae(str(folder)))

    @torch.no_grad()
    def __call__(self, latents_BCHW: Tensor) -> Tensor:
        """Return uint8 pictures (B, height, width, 3) on the CPU."""
        latents_BCHW = latents_BCHW.to(self.vae.device, self.vae.dtype) / self.vae.config.scaling_factor
        return to_pictures(self.vae.decode(latents_BCHW).sample)


def to_pictures(pixels_BCHW: Tensor) -> Tensor:
    """Turn decoder output in [-1, 1] into uint8 (B, height, width, 3), rounded as diffusers does."""
    levels_BHWC = (pixels_BCHW.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1) * 255
    return levels_BHWC.round().to(torch.uint8).cpu()
