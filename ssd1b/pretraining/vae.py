"""Train the nano VAE: SDXL's autoencoder (factor 8, 4 latent channels) at small width.

Loss: L1 + MSE + L1 of the image gradients (edges) + a slight KL term. Trained on random crops, which cost the same
per pixel as whole pictures and give more optimizer steps.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from ssd1b.pretraining.fit import Metrics, fit
from ssd1b.pretraining.pictures import Pictures
from ssd1b.recipes.pretrain import VaeTraining

# B batch, C colour channels (3), H W pixels, Z latent channels (4)


def new_vae(widths: tuple[int, ...]) -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=128,
        scaling_factor=1.0,
        force_upcast=False,
    )


def train_vae(
    config: VaeTraining,
    pictures: Pictures,
    root: Path,
    report: Callable[[int, Metrics], None],
    start: AutoencoderKL | None = None,
) -> AutoencoderKL:
    """Return the trained VAE; it starts from `start`, or from random weights.

    Its latents are standardised: zero mean and unit variance per channel over the pictures.
    """
    torch.manual_seed(config.seed)
    vae = (new_vae(config.widths) if start is None else start).train()

    def loss_at(step: int) -> tuple[Tensor, Metrics]:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        crops_BCHW = random_crops(pictures.pixels_NCHW, config.batch, config.crop, generator)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(crops_BCHW).latent_dist
            out_BCHW = vae.decode(posterior.sample(generator)).sample
        out_BCHW = out_BCHW.float()
        l1, mse = F.l1_loss(out_BCHW, crops_BCHW), F.mse_loss(out_BCHW, crops_BCHW)
        edge = edge_loss(out_BCHW, crops_BCHW)
        kl = posterior.kl().mean() / (config.crop // 8) ** 2
        loss = l1 + mse + config.edge_weight * edge + config.kl_weight * kl
        psnr_db = 10 * torch.log10(4 / mse.detach())
        return loss, {"vae_loss": loss.item(), "psnr_db": psnr_db.item(), "kl": kl.item()}

    fit(root, {"vae": vae}, loss_at, config.optim, report=report)
    standardise(vae, pictures)
    return vae.eval()


def random_crops(pixels_NCHW: Tensor, batch: int, side: int, generator: torch.Generator) -> Tensor:
    """Return random crops of random pictures, mirrored half the time, float in [-1, 1], shape (B, C, side, side)."""
    n, _, height, width = pixels_NCHW.shape
    crops = []
    for i in torch.randint(n, (batch,), generator=generator).tolist():
        top = int(torch.randint(height - side + 1, (), generator=generator))
        left = int(torch.randint(width - side + 1, (), generator=generator))
        crop = pixels_NCHW[i, :, top : top + side, left : left + side]
        crops.append(crop.flip(-1) if torch.rand((), generator=generator) < 0.5 else crop)
    return torch.stack(crops).float() / 127.5 - 1


def edge_loss(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """Return the mean absolute difference of horizontal and vertical image gradients."""
    return sum((F.l1_loss(a_BCHW.diff(dim=dim), b_BCHW.diff(dim=dim)) for dim in (-1, -2)), start=torch.zeros(()))


@torch.no_grad()
def standardise(vae: AutoencoderKL, pictures: Pictures) -> None:
    """Fold a per-channel shift and scale into the convolutions around the latent, so that it is N(0, 1) per channel.

    Exact: decoding the new latent equals decoding the old one. Diffusion then needs no scaling factor.
    """
    means = torch.cat([encode_mean(vae, pictures.pixels_NCHW[i : i + 64]) for i in range(0, len(pictures), 64)])
    shift_Z, scale_Z = means.mean((0, 2, 3)), means.std((0, 2, 3))
    inside, outside = vae.quant_conv, vae.post_quant_conv
    z = len(shift_Z)
    inside.weight[:z] /= scale_Z[:, None, None, None]
    inside.bias[:z] = (inside.bias[:z] - shift_Z) / scale_Z
    inside.bias[z:] -= 2 * scale_Z.log()
    outside.bias += outside.weight[:, :, 0, 0] @ shift_Z
    outside.weight *= scale_Z[None, :, None, None]


@torch.no_grad()
def encode_mean(vae: AutoencoderKL, pixels_BCHW: Tensor) -> Tensor:
    """Return the posterior mean of uint8 pictures, shape (B, Z, H/8, W/8)."""
    mean_BZHW: Tensor = vae.encode(pixels_BCHW.float() / 127.5 - 1).latent_dist.mean
    return mean_BZHW
