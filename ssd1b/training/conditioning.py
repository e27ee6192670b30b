"""From stored rows to what the UNets are asked: noisy latents, text, micro-conditioning.

Text is encoded in the step, once for teacher and student: at SDXL's scale caching it would save 0.6 % of a step and
cost more than twice the storage of the latents. Dropped captions become zeros, as serving's unconditional prompt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssd1b.elastic.randomness import draw
from ssd1b.models.files import load_pipeline
from ssd1b.sampling.prompts import Prompts, hidden_and_pooled

# B batch rows, C latent channels, H latent height, W latent width, T text tokens, D text width, E pooled width

CHANNELS = 4
MICRO = ("original_height", "original_width", "crop_top", "crop_left", "target_height", "target_width")


@dataclass(frozen=True)
class Batch:
    """One slice, ready for the UNets."""

    noisy_BCHW: Tensor
    noise_BCHW: Tensor
    timestep_B: Tensor
    text_BTD: Tensor
    pooled_BE: Tensor
    time_ids_B6: Tensor
    real_B: Tensor
    """False: padding, which counts for nothing."""

    def ask(self) -> dict[str, Any]:
        """Return the arguments of a diffusers UNet call."""
        return {
            "sample": self.noisy_BCHW,
            "timestep": self.timestep_B,
            "encoder_hidden_states": self.text_BTD,
            "added_cond_kwargs": {"text_embeds": self.pooled_BE, "time_ids": self.time_ids_B6},
            "return_dict": False,
        }


class Conditioning:
    """Text towers and noise schedule of the base model, on the worker's device."""

    def __init__(self, base: str, device: torch.device) -> None:
        pipeline = load_pipeline(base, unet=None, vae=None)
        self.prompts = Prompts.of(pipeline)
        kind = pipeline.scheduler.config.prediction_type
        if kind != "epsilon":
            raise ValueError(f"{base} predicts {kind!r}; distillation here is of models that predict 'epsilon'")
        self.alphas_cumprod = pipeline.scheduler.alphas_cumprod.float().to(device)
        self.device = device
        for tower in self.prompts.towers:
            tower.requires_grad_(False).to(device)

    def batch(
        self, rows: Mapping[str, Sequence[Any]], *, seed: int, drop_share: float = 0.0, mirror_share: float = 0.0
    ) -> Batch:
        """Return the batch of stored rows (the latents' columns plus epoch and real)."""
        shape = (CHANNELS, rows["target_height"][0] // 8, rows["target_width"][0] // 8)
        clean, noise, timesteps, captions = [], [], [], []
        for i in range(len(rows["sample_id"])):
            drawn = draw(
                seed, rows["epoch"][i], rows["sample_id"][i], captions=rows["captions"][i], shape=shape,
                timesteps=len(self.alphas_cumprod), drop_share=drop_share, mirror_share=mirror_share,
            )  # fmt: skip
            mean_CHW, std_CHW = (np.frombuffer(rows[name][i], np.float16).reshape(shape) for name in ("mean", "std"))
            latent_CHW = mean_CHW.astype(np.float32) + std_CHW.astype(np.float32) * drawn.posterior_CHW
            clean.append(latent_CHW[..., ::-1] if drawn.mirrored else latent_CHW)
            noise.append(drawn.noise_CHW)
            timesteps.append(drawn.timestep)
            captions.append(drawn.caption)
        clean_BCHW, noise_BCHW = (torch.from_numpy(np.stack(part)).to(self.device) for part in (clean, noise))
        timestep_B = torch.tensor(timesteps, device=self.device)
        alpha = self.alphas_cumprod[timestep_B][:, None, None, None]
        text_BTD, pooled_BE = self.encode(captions)
        return Batch(
            noisy_BCHW=alpha.sqrt() * clean_BCHW + (1 - alpha).sqrt() * noise_BCHW,  # arXiv 2006.11239, equation 4
            noise_BCHW=noise_BCHW,
            timestep_B=timestep_B,
            text_BTD=text_BTD,
            pooled_BE=pooled_BE,
            time_ids_B6=torch.tensor([rows[name] for name in MICRO], device=self.device).T.float(),
            real_B=torch.tensor(rows["real"], device=self.device),
        )

    @torch.no_grad()
    def encode(self, captions: Sequence[str | None]) -> tuple[Tensor, Tensor]:
        """Return (text_BTD, pooled_BE); None becomes zeros. Captions that are too long are cut, brackets are text."""
        ids = self.prompts.first_window([caption or "" for caption in captions])
        text_BTD, pooled_BE = hidden_and_pooled(self.prompts.towers, ids)
        kept_B = torch.tensor([caption is not None for caption in captions], device=self.device)
        return text_BTD * kept_B[:, None, None], pooled_BE * kept_B[:, None]
