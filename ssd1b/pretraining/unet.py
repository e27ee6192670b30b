"""Train the nano UNets: the base teacher from nothing, then experts from the base on further styles.

Loss: epsilon prediction, MSE weighted by min-SNR (arXiv 2303.09556), under SDXL's noise schedule. Latents and text
embeddings are computed once, since VAE and towers are frozen; one caption in ten is dropped to zero embeddings, which
is what SDXL pipelines feed for the unconditional half.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from ssd1b.corpus.backdrops import PAPER
from ssd1b.family.start import quiet_start
from ssd1b.family.table import new_unet
from ssd1b.pretraining.fit import Metrics, fit
from ssd1b.pretraining.pictures import Pictures
from ssd1b.pretraining.text import TextTowers
from ssd1b.pretraining.vae import encode_mean
from ssd1b.recipes.pretrain import UNetTraining
from ssd1b.sizes import Size, time_ids

# N pictures, B batch, Z H W latent, K captions, T text tokens, D text width (both towers), E pooled width

TRAIN_TIMESTEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012


@dataclass(frozen=True)
class Inputs:
    """What the UNet sees of the pictures, computed once."""

    latents_NZHW: Tensor
    """Of the pictures, then of their mirror images: 2 N rows."""
    text_KTD: Tensor
    pooled_KE: Tensor
    captions: list[list[int]]
    """Rows of text_KTD that caption each picture."""
    styles: list[str]
    backdrops: list[str]


@torch.no_grad()
def prepare(pictures: Pictures, vae: AutoencoderKL, towers: TextTowers) -> Inputs:
    """Encode every picture, its mirror image, and every caption."""
    both = torch.cat([pictures.pixels_NCHW, pictures.pixels_NCHW.flip(-1)])
    latents = torch.cat([encode_mean(vae, both[i : i + 64]) for i in range(0, len(both), 64)])
    captions = sorted({caption for several in pictures.captions for caption in several})
    index = {caption: i for i, caption in enumerate(captions)}
    encoded = [encode_text(towers, captions[i : i + 256]) for i in range(0, len(captions), 256)]
    return Inputs(
        latents_NZHW=latents * vae.config.scaling_factor,
        text_KTD=torch.cat([text for text, _ in encoded]),
        pooled_KE=torch.cat([pooled for _, pooled in encoded]),
        captions=[[index[caption] for caption in several] for several in pictures.captions],
        styles=pictures.styles,
        backdrops=pictures.backdrops,
    )


def encode_text(towers: TextTowers, captions: list[str]) -> tuple[Tensor, Tensor]:
    """Return SDXL's text conditioning: both towers' last hidden layer but one (B, T, D), pooled text (B, E)."""
    batch = towers.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
    first = towers.first(batch.input_ids, output_hidden_states=True)
    second = towers.second(batch.input_ids, output_hidden_states=True)
    return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1), second.text_embeds


def alphas_cumprod() -> Tensor:
    """Return SDXL's noise schedule: the share of signal variance at each timestep, from betas linear in the root."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAIN_TIMESTEPS, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


def train_unet(
    config: UNetTraining,
    inputs: Inputs,
    root: Path,
    report: Callable[[int, Metrics], None],
    start: UNet2DConditionModel | None = None,
    architecture: str = "nano-sdxl",
) -> UNet2DConditionModel:
    """Return a trained UNet; it starts from `start`, or from random weights of the architecture."""
    torch.manual_seed(config.seed)
    unet = quiet_start(new_unet(architecture)) if start is None else start
    unet.train()
    signal = alphas_cumprod()
    snr = signal / (1 - signal)
    n = len(inputs.captions)
    side = inputs.latents_NZHW.shape[-1] * 8
    ids_B6 = torch.tensor([time_ids(Size(side, side), 0, 0, Size(side, side))] * config.batch, dtype=torch.float32)
    weight_N = torch.tensor([config.paper_weight if name == PAPER else 1.0 for name in inputs.backdrops])
    fresh_N = torch.tensor([style in config.fresh_styles for style in inputs.styles])

    def loss_at(step: int) -> tuple[Tensor, Metrics]:
        g = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        rows = torch.multinomial(weight_N, config.batch, replacement=True, generator=g)
        if fresh_N.any():
            half = config.batch // 2
            rows[:half] = torch.multinomial(weight_N * fresh_N, half, replacement=True, generator=g)
        mirrored = torch.randint(2, (config.batch,), generator=g)
        picks = torch.randint(1 << 30, (config.batch,), generator=g).tolist()
        own = [inputs.captions[i] for i in rows.tolist()]
        captions = torch.tensor([several[k % len(several)] for several, k in zip(own, picks, strict=True)])
        keep_B = (torch.rand(config.batch, generator=g) >= config.drop_caption).float()

        latents_BZHW = inputs.latents_NZHW[rows + n * mirrored]
        noise_BZHW = torch.randn(latents_BZHW.shape, generator=g)
        t_B = torch.randint(TRAIN_TIMESTEPS, (config.batch,), generator=g)
        a_B111 = signal[t_B][:, None, None, None]
        noisy_BZHW = a_B111.sqrt() * latents_BZHW + (1 - a_B111).sqrt() * noise_BZHW
        added = {"text_embeds": inputs.pooled_KE[captions] * keep_B[:, None], "time_ids": ids_B6}
        text_BTD = inputs.text_KTD[captions] * keep_B[:, None, None]
        out_BZHW = unet(noisy_BZHW, t_B, text_BTD, added_cond_kwargs=added).sample
        error_B = (out_BZHW - noise_BZHW).square().mean((1, 2, 3))
        weight_B = snr[t_B].clamp(max=config.snr_gamma) / snr[t_B]
        loss = (weight_B * error_B).mean()
        return loss, {"loss": loss.item(), "mse": error_B.mean().item()}

    fit(root, {"unet": unet}, loss_at, config.optim, report=report)
    return unet.eval()
