"""Whole pictures: every sampler, and pictures to start from, against diffusers' own pipelines for the same seed."""

import diffusers
import pytest
import torch

from ssd1b.engines.on_torch import TorchEngine
from ssd1b.models.files import NANO, load_pipeline, load_unet, load_vae
from ssd1b.sampling.counterparts import COUNTERPARTS
from ssd1b.sampling.decode import Decoder
from ssd1b.sampling.denoise import Known, Request, advance, generate, start
from ssd1b.sampling.prompts import Prompts
from ssd1b.sampling.schedule import SDXL
from ssd1b.sampling.tables import SAMPLERS
from ssd1b.sampling.vae import Vae

PROMPT = "a red apple, flat vector style"
STEPS = 6
DB = 40
"""Least PSNR. Rounding to 256 levels alone allows about 60."""
QUICK = ("heun", "dpmpp_2m_sde_karras", "unipc")
"""Two calls a step; fresh noise and Karras' levels; a corrector. The rest is slow."""


@pytest.fixture(scope="module")
def prompts():
    return Prompts.load(NANO)


@pytest.fixture(scope="module")
def decode():
    return Decoder.load(NANO)


@pytest.fixture(scope="module")
def nano():
    return TorchEngine(load_unet("nano"))


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline("nano")


def with_sampler(pipeline, kind, sampler):
    """A pipeline of a kind on the loaded parts, with the sampler's counterpart."""
    counterpart = COUNTERPARTS[sampler]
    scheduler = getattr(diffusers, counterpart.scheduler)(**counterpart.config(SDXL))
    return getattr(diffusers, kind)(**{**pipeline.components, "scheduler": scheduler})


def psnr(made_HW3, wanted_HW3):
    """In dB; infinite for equal pictures."""
    error = (made_HW3.double() / 255 - torch.from_numpy(wanted_HW3).double()).square().mean()
    return (-10 * torch.log10(error)).item()


@pytest.mark.parametrize(
    "sampler", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SAMPLERS]
)
def test_every_sampler_makes_diffusers_picture(sampler, pipeline, nano, prompts, decode):
    wanted = with_sampler(pipeline, "StableDiffusionXLPipeline", sampler)(
        PROMPT, num_inference_steps=STEPS, generator=torch.Generator().manual_seed(7), output_type="np"
    ).images[0]
    request = Request(prompt=PROMPT, seed=7, steps=STEPS, sampler=sampler)
    assert psnr(generate(nano, prompts, decode, [request])[0], wanted) >= DB


def drawing(rows=128):
    """A picture in [0, 1], (1, 3, rows, 128): stripes and a slope, so that neither way round is the same."""
    y, x = torch.meshgrid(torch.linspace(0, 1, rows), torch.linspace(0, 1, 128), indexing="ij")
    return torch.stack([(x * 6).floor() / 6, y, ((x + y) * 3) % 1])[None]


def painted(nano, prompts, decode, request, known):
    (row,) = start(prompts, [request], [known])
    while not row.done:
        advance(nano, [row])
    return decode(row.latents_CHW[None])[0]


@pytest.mark.parametrize(
    ("sampler", "strength"),
    [("euler_a", 0.6), ("unipc", 0.6), *(pytest.param(name, 0.75, marks=pytest.mark.slow) for name in SAMPLERS)],
)
def test_image_to_image_is_diffusers(sampler, strength, pipeline, nano, prompts, decode):
    """From pixels, so that the posterior is drawn from, and the noise after it."""
    wanted = with_sampler(pipeline, "StableDiffusionXLImg2ImgPipeline", sampler)(
        PROMPT,
        image=drawing(),
        strength=strength,
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(7),
        output_type="np",
    ).images[0]
    mean, std = Vae(load_vae("nano")).posterior(drawing() * 2 - 1)
    request = Request(prompt=PROMPT, seed=7, steps=STEPS, sampler=sampler, strength=strength)
    made = painted(nano, prompts, decode, request, Known(mean_CHW=mean[0], std_CHW=std[0]))
    assert psnr(made, wanted) >= DB


def test_image_to_image_from_latents_is_diffusers(pipeline, nano, prompts, decode):
    mean, _ = Vae(load_vae("nano")).posterior(drawing() * 2 - 1)
    wanted = with_sampler(pipeline, "StableDiffusionXLImg2ImgPipeline", "euler")(
        PROMPT,
        image=mean,
        strength=0.5,
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(7),
        output_type="np",
    ).images[0]
    request = Request(prompt=PROMPT, seed=7, steps=STEPS, strength=0.5)
    assert psnr(painted(nano, prompts, decode, request, Known(mean_CHW=mean[0])), wanted) >= DB


@pytest.mark.parametrize(
    ("sampler", "strength"),
    [
        ("dpmpp_2m", 0.6),
        pytest.param("euler_a", 1.0, marks=pytest.mark.slow),
        pytest.param("heun", 0.75, marks=pytest.mark.slow),
        pytest.param("ddim", 0.99, marks=pytest.mark.slow),
    ],
)
def test_inpainting_is_diffusers(sampler, strength, pipeline, nano, prompts, decode):
    """With a UNet of 4 channels: what the mask keeps is painted over after every step."""
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 40:, :72] = 1
    wanted = with_sampler(pipeline, "StableDiffusionXLInpaintPipeline", sampler)(
        PROMPT,
        image=drawing(),
        mask_image=mask,
        strength=strength,
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        height=128,
        width=128,
        generator=torch.Generator().manual_seed(7),
        output_type="np",
    ).images[0]
    mean, std = Vae(load_vae("nano")).posterior(drawing() * 2 - 1)
    known = Known(mean_CHW=mean[0], std_CHW=std[0], mask_1HW=mask[0, :, ::8, ::8])
    request = Request(prompt=PROMPT, seed=7, steps=STEPS, sampler=sampler, strength=strength)
    assert psnr(painted(nano, prompts, decode, request, known), wanted) >= DB
