"""Latents to pictures: the VAE decoder in torch."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from ssd1b.models.files import load_vae
from ssd1b.sampling.vae import Vae, finite_rows

# B batch, C latent channels, H W latent size; pictures are (B, height, width, 3)


class Decoder:
    """The VAE of one model, on the device it comes with, in the wanted precision or a safer one (see `Vae`)."""

    def __init__(self, vae: AutoencoderKL, dtype: torch.dtype | None = None, whole_side: int | None = None) -> None:
        self.vae = Vae(vae, dtype, whole_side)

    @staticmethod
    def load(folder: Path, dtype: torch.dtype = torch.float32) -> "Decoder":
        """Read the VAE of a folder in diffusers layout."""
        return Decoder(load_vae(str(folder)), dtype)

    def __call__(self, latents_BCHW: Tensor) -> Tensor:
        """Return uint8 pictures (B, height, width, 3) on the CPU.

        Raises:
            ValueError: latents that are not finite.
        """
        return to_pictures(self.vae.decode(latents_BCHW))


def to_pictures(pixels_BCHW: Tensor) -> Tensor:
    """Turn decoder output in [-1, 1] into uint8 (B, height, width, 3), rounded as diffusers does.

    Raises:
        ValueError: pixels that are not finite, with their rows.
    """
    if len(wrong := (~finite_rows(pixels_BCHW)).nonzero().flatten()):
        raise ValueError(
            f"the latents of rows {wrong.tolist()} are not finite, or too large to decode in float32: the UNet has "
            f"diverged; use another checkpoint, or the UNet in a higher precision"
        )
    levels_BHWC = (pixels_BCHW.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1) * 255
    return levels_BHWC.round().to(torch.uint8).cpu()
