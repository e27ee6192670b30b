"""From stored rows to what the UNets are asked: noisy latents, text, micro-conditioning.

Text is encoded in the step, once for teacher and student: at SDXL's scale caching it would save 0.6 % of a step and
cost more than twice the storage of the latents. A dropped caption becomes what serving's unconditional prompt is: zeros
for the SDXL line, the empty prompt for the SD-1.5 line, which also knows neither pooled text nor micro-conditioning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssd1b.elastic.randomness import draw
from ssd1b.models.files import load_pipeline
from ssd1b.sampling.prompts import Prompts
from ssd1b.sampling.text import hidden_and_pooled
from ssd1b.training.prediction import Kind, kind_of, noised, target

# B batch rows, C latent channels, H latent height, W latent width, T text tokens, D text width, E pooled width (0 in
# the SD-1.5 line)

CHANNELS = 4
MICRO = ("original_height", "original_width", "crop_top", "crop_left", "target_height", "target_width")


@dataclass(frozen=True)
class Batch:
    """One slice, ready for the UNets."""

    noisy_BCHW: Tensor
    noise_BCHW: Tensor
    target_BCHW: Tensor
    """What the student should predict: the noise, or the velocity."""
    timestep_B: Tensor
    text_BTD: Tensor
    pooled_BE: Tensor
    time_ids_B6: Tensor
    real_B: Tensor
    """False: padding, which counts for nothing."""
    kind: Kind = "epsilon"
    """What the student predicts, as the base does."""

    def ask(self, device: torch.device | None = None) -> dict[str, Any]:
        """Return the arguments of a diffusers UNet call, on a device; None: where the batch lies."""

        def there(tensor: Tensor) -> Tensor:
            return tensor if device is None else tensor.to(device, non_blocking=True)

        asked = {
            "sample": there(self.noisy_BCHW),
            "timestep": there(self.timestep_B),
            "encoder_hidden_states": there(self.text_BTD),
            "return_dict": False,
        }
        if not self.pooled_BE.shape[1]:
            return asked
        added = {"text_embeds": there(self.pooled_BE), "time_ids": there(self.time_ids_B6)}
        return asked | {"added_cond_kwargs": added}


class Conditioning:
    """Text towers and noise schedule of the base model, on the worker's device."""

    def __init__(self, base: str, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        """Fetch them; dtype is what the text towers compute in, all else is float32.

        Raises:
            ValueError: the base predicts neither noise nor velocity, or has no DDPM's noise schedule.
        """
        pipeline = load_pipeline(base, unet=None, vae=None)
        self.prompts = Prompts.of(pipeline)
        scheduler = pipeline.scheduler
        self.kind = kind_of(scheduler.config, base)
        if not hasattr(scheduler, "alphas_cumprod"):
            raise ValueError(
                f"{base} has a {type(scheduler).__name__}, which has no DDPM's noise schedule: give a base with one"
            )
        self.alphas_cumprod = scheduler.alphas_cumprod.float().to(device)
        self.timesteps = len(self.alphas_cumprod)
        self.device = device
        for tower in self.prompts.towers:
            tower.requires_grad_(False).to(device, dtype)

    def batch(
        self,
        rows: Mapping[str, Sequence[Any]],
        *,
        seed: int,
        drop_share: float = 0.0,
        mirror_share: float = 0.0,
        noise_offset: float = 0.0,
    ) -> Batch:
        """Return the batch of stored rows (the latents' columns plus epoch and real).

        noise_offset is the standard deviation of a shift that all of a channel's noise shares; the target has it too
        (Guttenberg, "Diffusion with offset noise", 2023; diffusers' train_text_to_image.py).
        """
        shape = (CHANNELS, rows["target_height"][0] // 8, rows["target_width"][0] // 8)
        clean, noise, timesteps, captions = [], [], [], []
        for i in range(len(rows["sample_id"])):
            drawn = draw(
                seed, rows["epoch"][i], rows["sample_id"][i], captions=rows["captions"][i], shape=shape,
                timesteps=self.timesteps, drop_share=drop_share, mirror_share=mirror_share,
            )  # fmt: skip
            mean_CHW, std_CHW = (np.frombuffer(rows[name][i], np.float16).reshape(shape) for name in ("mean", "std"))
            latent_CHW = mean_CHW.astype(np.float32) + std_CHW.astype(np.float32) * drawn.posterior_CHW
            clean.append(latent_CHW[..., ::-1] if drawn.mirrored else latent_CHW)
            noise.append(drawn.noise_CHW + np.float32(noise_offset) * drawn.offset_C[:, None, None])
            timesteps.append(drawn.timestep)
            captions.append(drawn.caption)
        clean_BCHW, noise_BCHW = (self.sent(torch.from_numpy(np.stack(part))) for part in (clean, noise))
        timestep_B = self.sent(torch.tensor(timesteps))
        a_B = self.alphas_cumprod[timestep_B]
        text_BTD, pooled_BE = self.encode(captions)
        return Batch(
            noisy_BCHW=noised(clean_BCHW, noise_BCHW, a_B),
            noise_BCHW=noise_BCHW,
            target_BCHW=target(self.kind, clean_BCHW, noise_BCHW, a_B),
            timestep_B=timestep_B,
            text_BTD=text_BTD,
            pooled_BE=pooled_BE,
            time_ids_B6=self.sent(torch.tensor([rows[name] for name in MICRO]).T.float()),
            real_B=self.sent(torch.tensor(rows["real"])),
            kind=self.kind,
        )

    @torch.no_grad()
    def encode(self, captions: Sequence[str | None]) -> tuple[Tensor, Tensor]:
        """Return (text_BTD, pooled_BE); None is no caption. Captions that are too long are cut, brackets are text."""
        ids = self.prompts.first_window([caption or "" for caption in captions])
        both = hidden_and_pooled(self.prompts.towers, [self.sent(ids_BW) for ids_BW in ids])
        text_BTD, pooled_BE = (each.float() for each in both)
        if len(self.prompts.towers) == 1:
            return text_BTD, pooled_BE
        kept_B = self.sent(torch.tensor([caption is not None for caption in captions]))
        return text_BTD * kept_B[:, None, None], pooled_BE * kept_B[:, None]

    def sent(self, tensor: Tensor) -> Tensor:
        """Return a tensor of the CPU on the worker's device. To a GPU it is copied while the GPU goes on working."""
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)
