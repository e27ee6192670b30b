"""The VAE where it may fail: activations beyond fp16, and pictures too large for one pass.

SDXL's own VAE computes values above 65,504, which fp16 turns into infinity and the picture into NaN; its config says so
by `force_upcast`. The repaired one (sdxl-vae-fp16-fix) says the contrary. Configs are sometimes wrong, so what comes
out is looked at as well.
"""

import copy
import logging
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

# B batch, C channels, H W size: latents (4 channels, an eighth of the pixels each way) or pixels (3 channels)

WHOLE_SIDES = 2
"""Sides of the VAE's own sample size in the largest square it makes whole: 1024 pixels where that size is 512."""
TILE_STEP = 32
"""Tiles are multiples of it, in pixels, so that a quarter of one, the overlap, is whole latent positions."""

logger = logging.getLogger(__name__)


def running_dtype(wanted: torch.dtype, force_upcast: bool) -> torch.dtype:
    """Return the precision that a VAE runs in: the wanted one, but float32 for fp16 where its config warns of it."""
    return torch.float32 if wanted == torch.float16 and force_upcast else wanted


def in_tiles(shape: Sequence[int], whole_side: int) -> bool:
    """Return whether a picture of a shape that ends with H, W is larger than the square that is made whole.

    All in pixels, or all in latent positions.
    """
    return shape[-2] * shape[-1] > whole_side * whole_side


class Vae:
    """A VAE on the device it comes with, in the wanted precision (None: the one it comes with) or a safer one.

    A row that comes out of fp16 or bf16 not finite is done again in float32, with one warning; the others keep their
    bits. From the first such row on a float32 copy of the VAE is held.

    A picture of more than whole_side squared pixels (None: WHOLE_SIDES of the sample size) is made in overlapping tiles
    of that side, blended, by diffusers. Tiles are normalised each by itself, so colours drift a little; larger tiles
    drift less, which is why a tile is as large as what is made whole.
    """

    def __init__(self, vae: AutoencoderKL, dtype: torch.dtype | None = None, whole_side: int | None = None) -> None:
        """Take the VAE over: its precision and tiling are changed in place.

        Raises:
            ValueError: a whole_side that tiles cannot have.
        """
        side = WHOLE_SIDES * vae.config.sample_size if whole_side is None else whole_side
        if side < TILE_STEP or side % TILE_STEP:
            raise ValueError(f"whole_side {side}: give a multiple of {TILE_STEP} pixels")
        self.vae = vae.to(running_dtype(dtype or vae.dtype, bool(vae.config.force_upcast))).eval()
        self.vae.tile_sample_min_size = side
        self.vae.tile_latent_min_size = side // 2 ** (len(vae.config.block_out_channels) - 1)

    @torch.no_grad()
    def decode(self, latents_BCHW: Tensor) -> Tensor:
        """Return pixels_BCHW about [-1, 1], float32 on the VAE's device.

        latents_BCHW are as the UNet sees them, scaled. Rows that not even float32 can decode are not finite.
        """
        scale = self.vae.config.scaling_factor
        tiled = in_tiles(latents_BCHW.shape, self.vae.tile_latent_min_size)
        return self.run(latents_BCHW, tiled, lambda vae, rows_BCHW: vae.decode(rows_BCHW / scale).sample)

    @torch.no_grad()
    def posterior(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the scaled latents, float32 on the VAE's device.

        pixels_BCHW are in [-1, 1]. A row that not even float32 can encode is NaN throughout.
        """
        scale = self.vae.config.scaling_factor
        tiled = in_tiles(pixels_BCHW.shape, self.vae.tile_sample_min_size)
        moments_BCHW = self.run(pixels_BCHW, tiled, lambda vae, rows_BCHW: vae.encode(rows_BCHW).latent_dist.parameters)
        # the distribution clamps its variance, which would make an infinite one look sound
        moments_BCHW[~finite_rows(moments_BCHW)] = torch.nan
        latents = DiagonalGaussianDistribution(moments_BCHW)
        return latents.mean * scale, latents.std * scale

    def run(self, rows_BCHW: Tensor, tiled: bool, work: Callable[[AutoencoderKL, Tensor], Tensor]) -> Tensor:
        """Return the work's result, float32, the rows that overflow done again."""
        rows_BCHW = rows_BCHW.to(self.vae.device)
        self.vae.use_tiling = tiled
        out_BCHW = work(self.vae, rows_BCHW.to(self.vae.dtype)).float()
        again_B = ~finite_rows(out_BCHW)
        if self.vae.dtype != torch.float32 and again_B.any():
            self.exact.use_tiling = tiled
            out_BCHW[again_B] = work(self.exact, rows_BCHW[again_B].float())
        return out_BCHW

    @cached_property
    def exact(self) -> AutoencoderKL:
        """The VAE in float32."""
        logger.warning(
            "the VAE overflows in %s: pictures that are not finite are made again in float32, which takes longer; use "
            "a VAE that is made for fp16, or float32",
            self.vae.dtype,
        )
        return copy.deepcopy(self.vae).float()


def finite_rows(x_BCHW: Tensor) -> Tensor:
    """Return for each row whether all of it is finite."""
    return x_BCHW.isfinite().flatten(1).all(1)
