"""A picture asked for, and the same picture in the making."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ssd1b.sampling.step import MEMORY
from ssd1b.sampling.tables import Table, table
from ssd1b.sampling.weights import Spans, parse, plain
from ssd1b.sizes import NANO_BUCKETS, Size

# C H W latent, T text tokens, D text width, E pooled width

LATENT_CHANNELS = 4


@dataclass(frozen=True, kw_only=True)
class Request:
    """One picture to make."""

    prompt: str
    negative: str | None = None
    """What the picture should not show; None is the model's unconditional prompt, SDXL's zeros."""
    weighted: bool = False
    """Read brackets in both prompts as weights (ssd1b.sampling.weights). Off, they are text, as in captions."""
    seed: int = 0
    steps: int = 25
    """Steps of the sampler from pure noise; a picture to start from leaves the first of them out (see strength)."""
    guidance: float = 5.0
    """Classifier-free guidance scale (arXiv 2207.12598); 1 or less asks the UNet only once a step."""
    rescale: float = 0.0
    """How far guidance's contrast is taken back, 0 to 1 (arXiv 2305.08891, section 3.4)."""
    sampler: str = "euler"
    size: Size = NANO_BUCKETS[0]
    strength: float = 1.0
    """Share of the steps that change a picture to start from; 1 is all."""
    slot: int = 0
    """Slot of the engine's LoRA bank; 0 is no adapter."""
    scale: float = 1.0
    """Weight of the adapter."""

    def __post_init__(self) -> None:
        table(self.sampler, self.steps)
        for name in ("guidance", "scale"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} {getattr(self, name)} is not a finite number")
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"rescale {self.rescale}: give a number from 0 (off) to 1")
        if not 0 < self.strength <= 1 or self.skip == self.steps:
            raise ValueError(f"strength {self.strength} of {self.steps} steps: give a share up to 1 that leaves a step")

    @property
    def skip(self) -> int:
        """Steps that strength leaves out, rounded as diffusers' image-to-image pipelines do."""
        return self.steps - int(self.steps * self.strength)

    def read(self, prompt: str) -> Spans:
        """Return one of its prompts, with or without weights.

        Raises:
            ValueError: a weight that cannot be.
        """
        return parse(prompt) if self.weighted else plain(prompt)


@dataclass(frozen=True, kw_only=True)
class Known:
    """A picture to start from, as `Vae.posterior` gives it."""

    mean_CHW: Tensor
    std_CHW: Tensor | None = None
    """The posterior's standard deviation, from which the row's generator draws; None takes the mean."""
    mask_1HW: Tensor | None = None
    """Which part of it to make anew: 1 anew, 0 as it is, at the size of the latents. None changes all of it."""


class Kept(NamedTuple):
    """What a row paints over after every step: what its mask keeps of a known picture."""

    clean_CHW: Tensor
    noise_CHW: Tensor
    mask_1HW: Tensor


@dataclass(kw_only=True)
class Row:
    """One picture in the making."""

    request: Request
    table: Table
    text_TD: Tensor
    pooled_E: Tensor
    negative_TD: Tensor
    negative_pooled_E: Tensor
    generator: torch.Generator
    memory: list[Tensor]
    """What `step.MEMORY` names, each (C, H, W); zeros before they are known."""
    kept: Kept | None = None
    step: int = field(default=0)
    """Calls of the UNet made: a step of Heun's method takes two."""

    @property
    def latents_CHW(self) -> Tensor:
        """In the scaling of the sampler's levels until the row is done, then what the VAE decodes."""
        return self.memory[MEMORY.index("latent")]

    @property
    def denoised_CHW(self) -> Tensor:
        """The latest estimate of the finished latents; zeros before the first step."""
        return self.memory[MEMORY.index("denoised")]

    @property
    def done(self) -> bool:
        return self.step == len(self.table)

    @property
    def guided(self) -> bool:
        return self.request.guidance > 1

    @property
    def group(self) -> tuple[int, ...]:
        """Height and width of the latents and tokens of the text: rows of one group may share an engine call."""
        return (*self.latents_CHW.shape[1:], len(self.text_TD))


def unit_noise(shape_CHW: torch.Size | tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw what diffusers draws for a batch of one."""
    noise_1CHW = torch.randn((1, *shape_CHW), generator=generator)
    return noise_1CHW[0]


def first_latents(
    request: Request, steps: Table, known: Known | None, generator: torch.Generator
) -> tuple[Tensor, Kept | None]:
    """Return the latents before the first call, on the CPU, and what is kept of a known picture.

    As diffusers' text-to-image, image-to-image and, with a mask, inpainting pipelines (4-channel UNet) make them, in
    the order in which they draw.

    Raises:
        ValueError: a strength without a picture, or a picture of another size.
    """
    shape = (LATENT_CHANNELS, request.size.latent.height, request.size.latent.width)
    if known is None:
        if request.strength < 1:
            raise ValueError(f"strength {request.strength} needs a picture to start from: give one, or strength 1")
        return unit_noise(shape, generator) * steps.start, None
    clean_CHW = known.mean_CHW.float().cpu()
    if clean_CHW.shape != shape:
        raise ValueError(f"the picture's latents are {tuple(clean_CHW.shape)}, {request.size} needs {shape}: resize it")
    if known.std_CHW is not None:
        clean_CHW = clean_CHW + known.std_CHW.float().cpu() * unit_noise(shape, generator)
    noise_CHW = unit_noise(shape, generator)
    if known.mask_1HW is None:
        return noised(clean_CHW, noise_CHW, steps, 0), None
    if known.mask_1HW.shape != (1, *shape[1:]):
        raise ValueError(f"the mask is {tuple(known.mask_1HW.shape)}: give it as {(1, *shape[1:])}, like the latents")
    if known.std_CHW is not None:
        # diffusers encodes the masked picture as well, and draws for it, though a 4-channel UNet is not shown it
        unit_noise(shape, generator)
    kept = Kept(clean_CHW, noise_CHW, known.mask_1HW.float().cpu())
    return noise_CHW * steps.start if request.strength == 1 else noised(clean_CHW, noise_CHW, steps, 0), kept


def noised(clean_CHW: Tensor, noise_CHW: Tensor, steps: Table, step: int) -> Tensor:
    """Return a known picture at the noise level before a call; after the last it is clean."""
    signal, noise = steps.level_X2[step].tolist()
    noised_CHW: Tensor = signal * clean_CHW + noise * noise_CHW
    return noised_CHW
