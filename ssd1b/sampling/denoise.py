"""Denoising row by row: a batch of rows at unlike steps of unlike samplers goes one step further.

A row is one picture in the making. `advance` is all that a server's step scheduler needs; `generate` is the plain loop
over it that jobs use. Every row has its own generator, and its text is never padded to another row's length, so a
picture does not depend on its neighbours.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ssd1b.sampling.prompts import Prompts, Text
from ssd1b.sampling.tables import Table, table
from ssd1b.sampling.weights import Spans, parse, plain
from ssd1b.sizes import NANO_BUCKETS, Size, time_ids

# B rows, N engine rows (conditional, then the guided ones again without prompt), C H W latent,
# T text tokens, D text width, E pooled width, K coefficients of a sampler step

LATENT_CHANNELS = 4
Predict = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""An engine's call (`ssd1b.engines.engine.Engine`): latents, timestep, text, pooled, time ids, slot, scale to noise."""


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
    guidance: float = 5.0
    """Classifier-free guidance scale (arXiv 2207.12598); 1 or less asks the UNet only once a step."""
    sampler: str = "euler"
    size: Size = NANO_BUCKETS[0]
    slot: int = 0
    """Slot of the engine's LoRA bank; 0 is no adapter."""
    scale: float = 1.0
    """Weight of the adapter."""

    def __post_init__(self) -> None:
        table(self.sampler, self.steps)
        for name in ("guidance", "scale"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} {getattr(self, name)} is not a finite number")

    def read(self, prompt: str) -> Spans:
        """Return one of its prompts, with or without weights.

        Raises:
            ValueError: a weight that cannot be.
        """
        return parse(prompt) if self.weighted else plain(prompt)


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
    latents_CHW: Tensor
    """In the units of the sampler's table until the row is done, then what the VAE decodes."""
    denoised_CHW: Tensor
    """The latest estimate of the finished latents; zeros before the first step."""
    step: int = field(default=0)
    """Steps taken."""

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


def start(prompts: Prompts, requests: Sequence[Request]) -> list[Row]:
    """Return rows at their first step.

    The first latents are those of diffusers for the same seed: a CPU generator's randn of (1, C, H, W).

    Raises:
        ValueError: a prompt is too long, or holds a weight that cannot be.
    """
    given = [request.read(request.negative) for request in requests if request.negative is not None]
    texts = prompts.read([*(request.read(request.prompt) for request in requests), *given])
    negatives = iter(texts[len(requests) :])
    rows = []
    for request, text in zip(requests, texts, strict=False):
        negative = None if request.negative is None else next(negatives)
        # what guidance does not ask for must not lengthen the prompt
        text, negative = alike(prompts, text, negative if request.guidance > 1 else None)
        generator = torch.Generator("cpu").manual_seed(request.seed)
        shape = (1, LATENT_CHANNELS, request.size.latent.height, request.size.latent.width)
        steps = table(request.sampler, request.steps)
        latents_CHW = torch.randn(shape, generator=generator)[0] * steps.start
        rows.append(
            Row(
                request=request,
                table=steps,
                text_TD=text.text_TD,
                pooled_E=text.pooled_E,
                negative_TD=negative.text_TD,
                negative_pooled_E=negative.pooled_E,
                generator=generator,
                latents_CHW=latents_CHW,
                denoised_CHW=torch.zeros_like(latents_CHW),
            )
        )
    return rows


def alike(prompts: Prompts, text: Text, negative: Text | None) -> tuple[Text, Text]:
    """Return both in equally many tokens; the shorter gets windows of the empty prompt. None is no prompt."""
    if negative is None:
        return text, prompts.unconditional(len(text.text_TD))
    tokens = max(len(text.text_TD), len(negative.text_TD))
    return prompts.longer(text, tokens), prompts.longer(negative, tokens)


def advance(engine: Predict, rows: Sequence[Row]) -> None:
    """Take every row one step further, in place, with one engine call.

    The rows must not be done and must be of one group; all else may differ. The engine sees one row for each, and one
    more for each guided one.
    """
    assert len({row.group for row in rows}) == 1, "padding would make a picture depend on its neighbours"
    c_BK = torch.tensor([row.table.steps_SK[row.step].tolist() for row in rows], dtype=torch.float32)
    timestep_B, scale_input, *mix = (column[:, None, None, None] for column in c_BK.unbind(1))
    latents_BCHW = torch.stack([row.latents_CHW for row in rows])
    guided = [i for i, row in enumerate(rows) if row.guided]
    asked = [*rows, *(rows[i] for i in guided)]
    where_N = torch.tensor([*range(len(rows)), *guided])
    noise_NCHW = engine(
        (latents_BCHW * scale_input)[where_N],
        timestep_B.flatten()[where_N],
        torch.stack([row.text_TD for row in rows] + [rows[i].negative_TD for i in guided]),
        torch.stack([row.pooled_E for row in rows] + [rows[i].negative_pooled_E for i in guided]),
        torch.tensor([micro_conditioning(row.request.size) for row in asked], dtype=torch.float32),
        torch.tensor([row.request.slot for row in asked]),
        torch.tensor([row.request.scale for row in asked], dtype=torch.float32),
    )
    noise_BCHW = guide(noise_NCHW, guided, [row.request.guidance for row in rows])
    latent, noise, history, fresh, denoised_latent, denoised_noise = mix
    before_BCHW = torch.stack([row.denoised_CHW for row in rows])
    fresh_BCHW = torch.stack([fresh_noise(row) for row in rows])
    denoised_BCHW = denoised_latent * latents_BCHW + denoised_noise * noise_BCHW
    latents_BCHW = latent * latents_BCHW + noise * noise_BCHW + history * before_BCHW + fresh * fresh_BCHW
    for row, latents_CHW, denoised_CHW in zip(rows, latents_BCHW, denoised_BCHW, strict=True):
        row.latents_CHW, row.denoised_CHW = latents_CHW, denoised_CHW
        row.step += 1


def guide(noise_NCHW: Tensor, guided: Sequence[int], guidance: Sequence[float]) -> Tensor:
    """Move the guided rows away from their unconditional prediction: u + g * (c - u)."""
    rows = len(guidance)
    noise_BCHW = noise_NCHW[:rows].clone()
    if guided:
        unconditional = noise_NCHW[rows:]
        weight = torch.tensor([guidance[i] for i in guided])[:, None, None, None]
        noise_BCHW[list(guided)] = unconditional + weight * (noise_BCHW[list(guided)] - unconditional)
    return noise_BCHW


def fresh_noise(row: Row) -> Tensor:
    """Draw what an ancestral sampler adds in this step; samplers that add nothing leave the generator alone."""
    if row.request.sampler != "euler_a":
        return torch.zeros_like(row.latents_CHW)
    return torch.randn((1, *row.latents_CHW.shape), generator=row.generator)[0]


def micro_conditioning(size: Size) -> tuple[int, int, int, int, int, int]:
    """Ask for an uncropped picture that was of this size to begin with."""
    return time_ids(size, 0, 0, size)


def generate(
    engine: Predict,
    prompts: Prompts,
    decode: Callable[[Tensor], Tensor],
    requests: Sequence[Request],
    batch: int = 8,
) -> Tensor:
    """Return the pictures of the requests, uint8 (N, height, width, 3), made `batch` at a time.

    All requests must ask for one size. decode maps latents_BCHW to such pictures (`Decoder`, `Bundle.decode`). Prompts
    of unlike windows make their steps apart.
    """
    pictures: list[Tensor] = []
    for i in range(0, len(requests), batch):
        rows = start(prompts, requests[i : i + batch])
        made: dict[int, Tensor] = {}
        for group in dict.fromkeys(row.group for row in rows):
            members = [n for n, row in enumerate(rows) if row.group == group]
            while running := [rows[n] for n in members if not rows[n].done]:
                advance(engine, running)
            made |= zip(members, decode(torch.stack([rows[n].latents_CHW for n in members])), strict=True)
        pictures += [made[n] for n in range(len(rows))]
    return torch.stack(pictures)
