"""A distillation step as a tutorial would write it: plain PyTorch, diffusers and transformers, nothing of this project.

It is what our step is measured against, and does the same arithmetic on the same rows: layer-level distillation to
SSD-1B's blocks in float32, as Segmind's distill_sdxl.py. Ours adds elastic order, journal, any number of workers,
checkpoints, other teachers and losses; this shows what that costs.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

# B batch rows, C latent channels, H latent height, W latent width, T text tokens, D text width, E pooled width

Rows = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class Models:
    """What a distillation needs, on the CPU in float32. The student is trained in place."""

    teacher: UNet2DConditionModel
    student: UNet2DConditionModel
    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer]
    towers: tuple[CLIPTextModel, CLIPTextModelWithProjection]
    alphas_cumprod: Tensor
    """The share of the picture's variance at each timestep."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    seed: int
    lr: float
    drop_share: float
    weight_decay: float
    max_grad_norm: float
    output_weight: float = 0.5
    feature_weight: float = 0.5


def plain_loop(models: Models, steps: Iterable[Sequence[Rows]], settings: Settings) -> Iterator[float]:
    """Take a step for the micro-batches of each entry of `steps`, and yield its loss."""
    student, teacher = models.student.train(), models.teacher.eval()
    ours, theirs = catch_features(student), catch_features(teacher)
    optimizer = torch.optim.AdamW(student.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    for micro_batches in steps:
        rows_of_step = sum(len(rows["sample_id"]) for rows in micro_batches)
        total = 0.0
        for rows in micro_batches:
            inputs, noise_BCHW = prepare(models, rows, settings)
            with torch.no_grad():
                teacher_BCHW = teacher(**inputs).sample
            student_BCHW = student(**inputs).sample
            loss = F.mse_loss(student_BCHW, noise_BCHW)
            loss = loss + settings.output_weight * F.mse_loss(student_BCHW, teacher_BCHW)
            features = torch.stack([F.mse_loss(ours[name], theirs[name]) for name in ours]).sum()
            loss = (loss + settings.feature_weight * features) * (len(noise_BCHW) / rows_of_step)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        nn.utils.clip_grad_norm_(student.parameters(), settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        yield total


def catch_features(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """Return a dictionary that holds, after each call of the UNet, the output of every resnet, attention and mid block.

    They are 26 in SSD-1B, and have the same names in SDXL.
    """
    features: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            features[name] = output if isinstance(output, Tensor) else output[0]

        return hook

    for name, module in unet.named_modules():
        if re.fullmatch(r"(down|up)_blocks\.\d\.(resnets|attentions)\.\d|mid_block", name):
            module.register_forward_hook(keep(name))
    return features


def prepare(models: Models, rows: Rows, settings: Settings) -> tuple[dict[str, Any], Tensor]:
    """Return the arguments of the UNets for some rows, and the noise that is to be found."""
    shape = (4, rows["target_height"][0] // 8, rows["target_width"][0] // 8)
    latents, noises, timesteps, captions = [], [], [], []
    for i, captions_of_row in enumerate(rows["captions"]):
        random = np.random.default_rng((settings.seed, rows["epoch"][i], rows["sample_id"][i]))
        timesteps.append(int(random.integers(len(models.alphas_cumprod))))
        dropped = random.random(2)[0] < settings.drop_share
        caption = captions_of_row[int(random.integers(len(captions_of_row)))]
        captions.append(None if dropped else caption)
        mean_CHW, std_CHW = (np.frombuffer(rows[name][i], np.float16).reshape(shape) for name in ("mean", "std"))
        latents.append(mean_CHW.astype(np.float32) + std_CHW * random.standard_normal(shape, dtype=np.float32))
        noises.append(random.standard_normal(shape, dtype=np.float32))
    latents_BCHW, noise_BCHW = torch.from_numpy(np.stack(latents)), torch.from_numpy(np.stack(noises))
    timestep_B = torch.tensor(timesteps)
    a_B111 = models.alphas_cumprod[timestep_B][:, None, None, None]
    text_BTD, pooled_BE = encode(models, captions)
    sizes = ("original_height", "original_width", "crop_top", "crop_left", "target_height", "target_width")
    time_ids_B6 = torch.tensor([rows[name] for name in sizes], dtype=torch.float32).T
    return {
        "sample": a_B111.sqrt() * latents_BCHW + (1 - a_B111).sqrt() * noise_BCHW,
        "timestep": timestep_B,
        "encoder_hidden_states": text_BTD,
        "added_cond_kwargs": {"text_embeds": pooled_BE, "time_ids": time_ids_B6},
    }, noise_BCHW


@torch.no_grad()
def encode(models: Models, captions: Sequence[str | None]) -> tuple[Tensor, Tensor]:
    """Return (text_BTD, pooled_BE); both are zeros where there is no caption."""
    hidden, pooled_BE = [], torch.empty(0)
    for tokenizer, tower in zip(models.tokenizers, models.towers, strict=True):
        length = tower.config.max_position_embeddings
        texts = [caption or "" for caption in captions]
        ids = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
        output = tower(ids, output_hidden_states=True)
        hidden.append(output.hidden_states[-2])
        pooled_BE = output[0]  # of the second tower, which comes last
    keep_B = torch.tensor([float(caption is not None) for caption in captions])
    return torch.cat(hidden, dim=-1) * keep_B[:, None, None], pooled_BE * keep_B[:, None]


def bare_passes(
    teacher: UNet2DConditionModel, student: UNet2DConditionModel, inputs: Mapping[str, Any], noise_BCHW: Tensor
) -> None:
    """Run the passes that no step can spare: teacher forward, student forward, and backward from its error alone."""
    with torch.no_grad():
        teacher(**inputs)
    error = F.mse_loss(student(**inputs)[0].float(), noise_BCHW)
    error.backward()  # type: ignore[no-untyped-call]
