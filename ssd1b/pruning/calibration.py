"""Calibration inputs: what the UNet of a pipeline is asked while its pieces are measured.

Noisy latents of pictures with their captions, timesteps spread evenly over the schedule. The pictures are the shipped
corpus's, encoded by the pipeline's own VAE, or rows that jobs.encode has left under <home>/latents.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from diffusers import DiffusionPipeline
from torch import Tensor
from torch.nn.functional import interpolate

from ssd1b.family.measure import native_size
from ssd1b.home import home
from ssd1b.pretraining.pictures import read_pictures
from ssd1b.pruning.sensitivity import Ask
from ssd1b.recipes.pretrain import BASE_STYLES, CONCEPTS
from ssd1b.sampling.prompts import Prompts
from ssd1b.sampling.text import hidden_and_pooled
from ssd1b.sampling.vae import Vae
from ssd1b.sizes import Size, time_ids

# B batch, C latent channels, H W latent size

BATCH = 8
COLUMNS = ("sample_id", "mean", "captions", "original_height", "original_width", "crop_top", "crop_left",
           "target_height", "target_width")  # fmt: skip


@dataclass(frozen=True)
class Example:
    """One picture as the UNet is shown it, before noise."""

    latent_CHW: Tensor
    caption: str
    time_ids: tuple[int, ...]


def of_corpus(pipeline: DiffusionPipeline, count: int, split: str = "train") -> list[Example]:
    """Return drawings of the shipped corpus at the UNet's own size, the same on every machine.

    Raises:
        ValueError: more are asked for than there are.
    """
    pictures = read_pictures(split=split, styles=BASE_STYLES, subgroups=CONCEPTS)
    if len(pictures) < count:
        raise ValueError(f"the corpus has {len(pictures)} pictures for calibration, not {count}: ask for fewer")
    order = sorted(range(len(pictures)), key=lambda i: hashlib.sha256(pictures.captions[i][0].encode()).digest())
    vae, size = Vae(pipeline.vae), native_size(pipeline.unet.config)
    found = []
    for i in order[:count]:
        pixels_BCHW = pictures.pixels_NCHW[i : i + 1].float() / 127.5 - 1
        drawn = Size(*pixels_BCHW.shape[-2:])
        scaled_BCHW = interpolate(pixels_BCHW, (size.height, size.width), mode="bicubic", antialias=True)
        mean_BCHW, _ = vae.posterior(scaled_BCHW.clamp(-1, 1))
        found.append(Example(mean_BCHW[0].cpu(), pictures.captions[i][0], time_ids(drawn, 0, 0, size)))
    return found


def of_latents(name: str, count: int) -> list[Example]:
    """Return the first rows of <home>/latents/<name>, every part giving its share.

    Raises:
        ValueError: there are no such latents, or fewer rows than asked for.
    """
    folder = home() / "latents" / name
    parts = sorted(folder.glob("bucket=*/*.parquet"))
    if not parts:
        raise ValueError(f"no latents under {folder}: run jobs.encode, or leave --latents out to use the corpus")
    share = -(-count // len(parts))
    found = [example for part in parts for example in rows_of(part, share)][:count]
    if len(found) < count:
        raise ValueError(f"{folder} gave {len(found)} rows for calibration, not {count}: ask for fewer")
    return found


def rows_of(part: Path, count: int) -> Iterator[Example]:
    """Yield the first rows of a part."""
    table = pq.ParquetFile(part)
    batch = next(table.iter_batches(count, columns=list(COLUMNS)))
    for row in batch.to_pylist():
        size = Size(row["target_height"], row["target_width"])
        mean = np.frombuffer(row["mean"], np.float16).reshape(-1, size.latent.height, size.latent.width)
        micro = tuple(int(row[name]) for name in COLUMNS[3:])
        yield Example(torch.from_numpy(mean.astype(np.float32)), row["captions"][0], micro)


@torch.no_grad()
def asks(pipeline: DiffusionPipeline, examples: Sequence[Example], seed: int) -> list[Ask]:
    """Return the UNet calls that show the examples, each at a timestep of its own, in batches of one latent shape."""
    prompts = Prompts.of(pipeline)
    unet, alphas = pipeline.unet, pipeline.scheduler.alphas_cumprod.float()
    draw = torch.Generator().manual_seed(seed)
    shapes: dict[Any, list[tuple[Example, int, Tensor]]] = defaultdict(list)
    for i, example in enumerate(examples):
        timestep = int((i + 0.5) / len(examples) * len(alphas))
        noise_CHW = torch.randn(example.latent_CHW.shape, generator=draw)
        shapes[example.latent_CHW.shape].append((example, timestep, noise_CHW))
    found = []
    for group in shapes.values():
        # neighbours in time would share a batch; dealt like this every batch sees the whole schedule
        batches = max(1, len(group) // BATCH)
        for members in (group[start::batches] for start in range(batches)):
            found.append(ask(unet, prompts, alphas, members))
    return found


def ask(unet: Any, prompts: Prompts, alphas: Tensor, members: Sequence[tuple[Example, int, Tensor]]) -> Ask:
    """Return one call: the forward process (arXiv 2006.11239, equation 4) at each member's timestep."""
    to: dict[str, Any] = {"device": unet.device, "dtype": unet.dtype}
    timestep_B = torch.tensor([timestep for _, timestep, _ in members])
    alpha = alphas[timestep_B][:, None, None, None]
    clean_BCHW = torch.stack([example.latent_CHW for example, _, _ in members])
    noise_BCHW = torch.stack([noise_CHW for _, _, noise_CHW in members])
    ids = prompts.first_window([example.caption for example, _, _ in members])
    text_BTD, pooled_BE = hidden_and_pooled(prompts.towers, ids)
    ids_B6 = torch.tensor([example.time_ids for example, _, _ in members], dtype=torch.float32)
    added = {"text_embeds": pooled_BE.to(**to), "time_ids": ids_B6.to(**to)}
    return {
        "sample": (alpha.sqrt() * clean_BCHW + (1 - alpha).sqrt() * noise_BCHW).to(**to),
        "timestep": timestep_B.to(unet.device),
        "encoder_hidden_states": text_BTD.to(**to),
        "added_cond_kwargs": added if unet.config.addition_embed_type == "text_time" else None,
        "return_dict": False,
    }
