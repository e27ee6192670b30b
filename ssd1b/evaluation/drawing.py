"""Pictures of a model for a list of prompts, kept as files: five thousand at 1024 px do not fit into memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssd1b.engines.on_torch import TorchEngine
from ssd1b.evaluation.asks import Ask
from ssd1b.models.files import load_unet, load_vae
from ssd1b.models.local import folder_of
from ssd1b.recipes.evaluate import Evaluate
from ssd1b.sampling.decode import Decoder
from ssd1b.sampling.denoise import Request, generate
from ssd1b.sampling.prompts import Prompts
from ssd1b.sampling.schedule import Schedule
from ssd1b.sizes import Size

# N pictures, B of a batch, H W pixels, C colours

FAST_PNG = 1
"""Of zlib's nine levels."""


@dataclass(frozen=True)
class Model:
    """What makes pictures."""

    engine: TorchEngine
    prompts: Prompts
    decode: Decoder
    schedule: Schedule

    @staticmethod
    def load(source: str, device: str = "cpu") -> "Model":
        """Load a source (ssd1b.models.files) for the torch engine: float32 on a CPU, bfloat16 elsewhere."""
        folder = folder_of(source)
        unet = load_unet(source)
        if device != "cpu":
            unet = unet.to(device, torch.bfloat16)
        vae = load_vae(source).to(device)
        return Model(TorchEngine(unet), Prompts.load(folder), Decoder(vae), Schedule.read(folder))

    @property
    def parameters(self) -> int:
        """Of the UNet."""
        return int(self.engine.unet.num_parameters())


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size in a folder, numbered from 0."""

    folder: Path
    count: int

    def __len__(self) -> int:
        return self.count

    def path(self, i: int) -> Path:
        """Return where a picture lies."""
        return self.folder / f"{i:05d}.png"

    def keep(self, start: int, pictures_BHWC: Tensor) -> None:
        """Write a batch of uint8 pictures, the first of them as number `start`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for i, picture in enumerate(pictures_BHWC, start):
            Image.fromarray(picture.numpy()).save(self.path(i), compress_level=FAST_PNG)

    def read(self, i: int) -> Image.Image:
        """Return one picture."""
        return Image.open(self.path(i)).convert("RGB")

    def batches(self, size: int) -> Iterator[Tensor]:
        """Yield uint8 pictures (B, height, width, 3) in order."""
        for start in range(0, self.count, size):
            chosen = range(start, min(start + size, self.count))
            yield torch.stack([torch.from_numpy(np.array(self.read(i))) for i in chosen])


def draw(model: Model, asks: Sequence[Ask], config: Evaluate, folder: Path) -> Pictures:
    """Draw every prompt at its seed, as the recipe says, and keep the pictures in a folder."""
    pictures = Pictures(folder, len(asks))
    for start in range(0, len(asks), config.batch):
        requests = [request(ask, config) for ask in asks[start : start + config.batch]]
        made_BHWC = generate(
            model.engine, model.prompts, model.decode, requests, config.batch, schedule=model.schedule,
            device=model.engine.device,
        )  # fmt: skip
        pictures.keep(start, made_BHWC)
    return pictures


def request(ask: Ask, config: Evaluate) -> Request:
    """Return what the sampler is asked for."""
    return Request(
        prompt=ask.prompt,
        negative=config.negative,
        seed=ask.seed,
        steps=config.steps,
        guidance=config.guidance,
        sampler=config.sampler,
        size=Size(config.side, config.side),
    )
