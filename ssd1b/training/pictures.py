"""Pictures of teacher and student side by side, from the same prompts and seeds."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor

from ssd1b.sampling.decode import Decoder
from ssd1b.sampling.denoise import Predict, Request, generate
from ssd1b.sampling.prompts import Prompts
from ssd1b.sizes import Size

# B batch rows, C latent channels, H latent height, W latent width, T text tokens, D text width, E pooled width


def predictor(unet: UNet2DConditionModel) -> Predict:
    """Return a UNet as the engine call that sampling asks for, without adapters."""
    weight = next(unet.parameters())

    @torch.no_grad()
    def predict(
        latents_BCHW: Tensor, timestep_B: Tensor, text_BTD: Tensor, pooled_BE: Tensor, time_ids_B6: Tensor, *_: Any
    ) -> Tensor:
        def there(tensor: Tensor) -> Tensor:
            return tensor.to(weight.device, weight.dtype)

        added = {"text_embeds": there(pooled_BE), "time_ids": there(time_ids_B6)}
        noise_BCHW: Tensor = unet(
            there(latents_BCHW),
            timestep_B.to(weight.device),
            there(text_BTD),
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return noise_BCHW.float().cpu()

    return predict


def side_by_side(
    unets: Sequence[UNet2DConditionModel],
    prompts: Prompts,
    decoder: Decoder,
    texts: Sequence[str],
    *,
    size: Size,
    steps: int,
    guidance: float,
) -> Image.Image:
    """Return a sheet: a row per text, a column per UNet."""
    requests = [
        Request(prompt=text, seed=seed, steps=steps, guidance=guidance, size=size) for seed, text in enumerate(texts)
    ]
    columns = [generate(predictor(unet), prompts, decoder, requests) for unet in unets]
    return Image.fromarray(torch.cat([torch.cat(list(column), dim=0) for column in columns], dim=1).numpy())
