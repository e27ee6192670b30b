"""Whether an engine draws what plain diffusers draws: whole pictures for the same seeds, as PSNR."""

from collections.abc import Iterable
from pathlib import Path

import diffusers
import torch
from torch import Tensor

from ssd1b.command import show
from ssd1b.engines.bundle import Bundle
from ssd1b.models.files import load_pipeline
from ssd1b.sampling.counterparts import COUNTERPARTS
from ssd1b.sampling.denoise import Request, generate
from ssd1b.sampling.schedule import Schedule

# H W height and width in pixels, 3 red green blue

ASKED = (
    Request(prompt="a purple teapot beside two lemons, flat vector style", seed=11, steps=20),
    Request(prompt="an owl wearing a hat", negative="blurry", seed=12, steps=12, sampler="dpmpp_2m_karras"),
    Request(prompt="a steam train, black line style", seed=13, steps=8, sampler="euler_a", guidance=8),
)
"""Pictures that no model here was trained on, by unlike samplers."""


def psnr_db(made_HW3: Tensor, wanted_HW3: Tensor) -> float:
    """Return the peak signal-to-noise ratio of uint8 pictures; equal ones have 100."""
    error = (made_HW3.double() - wanted_HW3.double()).square().mean() / 255**2
    return float(-10 * torch.log10(error.clamp_min(1e-10)))


def by_diffusers(folder: Path) -> list[Tensor]:
    """Return the pictures that StableDiffusionXLPipeline draws from a folder, uint8."""
    pipeline, schedule = load_pipeline(str(folder)), Schedule.read(folder)
    pipeline.set_progress_bar_config(disable=True)
    made = []
    for asked in ASKED:
        counterpart = COUNTERPARTS[asked.sampler]
        pipeline.scheduler = getattr(diffusers, counterpart.scheduler)(**counterpart.config(schedule))
        picture = pipeline(
            asked.prompt,
            negative_prompt=asked.negative,
            num_inference_steps=asked.steps,
            guidance_scale=asked.guidance,
            generator=torch.Generator().manual_seed(asked.seed),
            output_type="np",
        ).images[0]
        made.append((torch.from_numpy(picture) * 255).round().to(torch.uint8))
    return made


def same_pictures(bundles: Iterable[Bundle]) -> dict[str, float]:
    """Return by engine the worst PSNR of its pictures against diffusers', each engine in all its precisions.

    Our pictures are drawn in one batch, diffusers' one at a time.
    """
    result: dict[str, float] = {}
    wanted: list[Tensor] = []
    for bundle in bundles:
        wanted = wanted or by_diffusers(bundle.folder)
        for precision in ("f32", "auto"):
            engine = bundle.engine(precision)
            if engine.name in result:
                continue
            made = generate(engine, bundle.prompts, bundle.decode, ASKED, schedule=Schedule.read(bundle.folder))
            worst = min(psnr_db(*pair) for pair in zip(made, wanted, strict=True))
            result[engine.name] = round(worst, 1)
            show(f"{engine.name}: whole pictures within {worst:.1f} dB of diffusers' at worst")
    return result
