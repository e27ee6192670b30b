"""A1111's web API: txt2img and img2img as its clients send them.

Known are all fields of its own models (modules/api/models.py, modules/processing.py). What would change the picture and
cannot be honoured here is refused by name unless it is off; what only says where A1111 keeps files is passed over.
Prompts take adapters as <lora:name:weight>. Sizes default to the model's first rather than to 512 x 512.
"""

import json
import re
from typing import Annotated, Any

from PIL import ImageFilter
from pydantic import Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from serve.answer import Generation
from serve.dialects.body import (
    PICTURE,
    SCALE,
    SEEDS,
    STEPS,
    Body,
    checked,
    distinct,
    drawn_seed,
    fields_of,
    picture_of,
    sized,
    unmet,
)
from serve.dialects.pictures import opened, png, require_shape, whole, whole_of
from serve.dialects.samplers import A1111, A1111_SCHEDULERS, A1111_WHOLE, a1111, a1111_name
from serve.errors import RequestError
from serve.request import GenerationRequest, LoraChoice, Start

BATCH = 4
"""Most of batch_size and of n_iter: a request has at most 16 pictures."""
LORA = re.compile(r"<lora:(?P<name>[^:<>]+)(?::(?P<rest>[^<>]*))?>")
NETWORK = re.compile(r"<(?P<kind>hypernet|lyco):[^<>]*>")
OFF: tuple[Any, ...] = (None, False, 0, 0.0, -1, "", [], {}, "None")
"""Values of a field that asks for nothing."""
REFUSED = {
    "subseed_strength": "leave it at 0: there are no variations between two seeds here",
    "seed_resize_from_h": "leave it at -1",
    "seed_resize_from_w": "leave it at -1",
    "restore_faces": "set it to false: there is no face restorer here",
    "tiling": "set it to false",
    "eta": "leave it out: each sampler has its own",
    "s_min_uncond": "leave it at 0",
    "s_churn": "leave it at 0",
    "s_tmax": "leave it out",
    "s_tmin": "leave it at 0",
    "enable_hr": "set it to false, and send the picture to /sdapi/v1/img2img at the larger size",
    "refiner_checkpoint": "leave it out: there is no refiner here",
    "script_name": "leave it out: there are no scripts here",
    "script_args": "leave it empty",
    "alwayson_scripts": "leave it empty: there are no extensions here",
    "firstpass_image": "leave it out",
    "override_settings": "leave it empty: this endpoint serves one model with settings of its own",
    "infotext": "leave it out, and send the fields themselves",
    "inpainting_mask_invert": "leave it at 0, and invert the mask: white is drawn anew",
    "inpaint_full_res": "set it to false: the whole picture is drawn at once",
    "latent_mask": "leave it out: use mask",
    "image_cfg_scale": "leave it out: there is no model that reads instructions here",
}
"""Fields that would change the picture, with what to do instead."""
ONLY: dict[str, tuple[Any, ...]] = {
    "resize_mode": (0, 1),
    "inpainting_fill": (1,),
    "s_noise": (1,),
    "initial_noise_multiplier": (1,),
    "disable_extra_networks": (False,),
}
"""Fields of which these values ask for what is done here anyway: crop and resize, the masked part's own latents."""
IGNORED = (
    "subseed", "refiner_switch_at", "do_not_save_samples", "do_not_save_grid", "override_settings_restore_afterwards",
    "comments", "send_images", "save_images", "hr_scale", "hr_upscaler", "hr_second_pass_steps", "hr_resize_x",
    "hr_resize_y", "hr_checkpoint_name", "hr_sampler_name", "hr_scheduler", "hr_prompt", "hr_negative_prompt",
    "firstphase_width", "firstphase_height", "mask_round", "inpaint_full_res_padding", "include_init_images",
)  # fmt: skip
"""Fields that say where A1111 keeps files, or belong to ones that are refused unless they are off."""


EncodedPicture = Annotated[str, WithJsonSchema({"type": "string", **PICTURE})]


class Txt2Img(Body):
    """Body of POST /sdapi/v1/txt2img: the fields that are honoured. More of A1111's are known, see the module."""

    prompt: str = Field(default="", max_length=32_000)
    """What to draw; <lora:name:weight> adds an adapter, (word:1.3) weighs."""
    negative_prompt: str = Field(default="", max_length=32_000)
    styles: list[str] = Field(default=[], max_length=1)
    """A preset of GET /sdapi/v1/prompt-styles."""
    seed: int = Field(default=-1, ge=-1, le=SEEDS)
    """-1 draws one at random; picture i has seed + i."""
    sampler_name: str | None = Field(default=None, json_schema_extra={"enum": list(A1111_WHOLE)})
    """One of GET /sdapi/v1/samplers; Euler if not given."""
    sampler_index: str | None = Field(default=None, json_schema_extra={"enum": list(A1111_WHOLE)})
    """The older name of sampler_name."""
    scheduler: SkipJsonSchema[str | None] = None
    """One of GET /sdapi/v1/schedulers that the sampler has. A schema cannot say which: sampler_name says both."""
    batch_size: int = Field(default=1, ge=1, le=BATCH)
    n_iter: int = Field(default=1, ge=1, le=BATCH)
    """The request has batch_size times n_iter pictures."""
    steps: int = Field(default=50, ge=1, le=STEPS)
    cfg_scale: float = Field(default=7.0, ge=0, le=30, allow_inf_nan=False)
    width: int | None = Field(default=None, gt=0, le=16_384)
    """Pixels, with height; one of the sizes that GET /v1/offer lists."""
    height: int | None = Field(default=None, gt=0, le=16_384)
    force_task_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_().:-]{1,128}$")
    """A name of your own for the request, by which /progress and /interrupt know it."""


class Img2Img(Txt2Img):
    """Body of POST /sdapi/v1/img2img."""

    init_images: list[EncodedPicture] = Field(min_length=1, max_length=1)
    """The picture to start from, in base64 or as a data: URI."""
    mask: EncodedPicture | None = None
    """A picture of the same size: white is drawn anew; "" is none."""
    denoising_strength: float = Field(default=0.75, gt=0, le=1, allow_inf_nan=False)
    """How much is drawn anew."""
    mask_blur: int = Field(default=4, ge=0, le=64)
    """Standard deviation of the blur at the mask's edge, pixels of the mask."""


def read(body: bytes, model: type[Txt2Img]) -> Txt2Img:
    """Return the checked request in a body.

    Raises:
        RequestError: no JSON object, a field A1111 does not know, or one that cannot be honoured.
    """
    fields = fields_of(body)
    for name, fix in REFUSED.items():
        value = fields.pop(name, None)
        if not any(value == off and type(value) is type(off) for off in OFF):
            raise unmet(name, value, fix)
    for name, values in ONLY.items():
        value = fields.pop(name, None)
        if value is not None and value not in values:
            raise unmet(name, value, f"leave it out, or at {values[0]}")
    if model is Txt2Img:
        fields.pop("denoising_strength", None)  # belongs to enable_hr, which is off
    return checked(model, {name: value for name, value in fields.items() if name not in IGNORED})


def to_request(body: Txt2Img, start: Start | None = None, spare: int | None = None) -> GenerationRequest:
    """Return what the body asks for; `spare` is the seed of a body without one.

    Raises:
        RequestError: a sampler or adapter that cannot be.
    """
    prompt, loras = without_loras(body.prompt)
    sampler = body.sampler_name or body.sampler_index or "Euler"
    return GenerationRequest(
        prompt=prompt,
        negative_prompt=body.negative_prompt,
        n=body.batch_size * body.n_iter,
        size=sized(body.width, body.height),
        seed=drawn_seed(body.seed, spare),
        steps=body.steps,
        guidance=body.cfg_scale,
        sampler=a1111(sampler, body.scheduler or "Automatic"),
        loras=loras,
        start=start,
        style=body.styles[0] if body.styles else None,
        previews=3 if body.force_task_id else 0,
    )


def without_loras(prompt: str) -> tuple[str, tuple[LoraChoice, ...]]:
    """Return the prompt without its <lora:name:weight> tokens, and what they name.

    The weight is 1 if not given. A second one, A1111's weight of the UNet where it differs from the text towers', is
    taken only if both are equal: an adapter has one scale here.

    Raises:
        RequestError: a weight that is no number or too great, too many adapters, another kind of network.
    """
    if other := NETWORK.search(prompt):
        raise RequestError(f"{other[0]} is not offered: use <lora:name:weight>", "prompt", "invalid_value")
    loras = distinct((lora_of(found) for found in LORA.finditer(prompt)), "prompt")
    return re.sub(r"\s{2,}", " ", LORA.sub(" ", prompt)).strip() if loras else prompt, loras


def lora_of(found: re.Match[str]) -> LoraChoice:
    parts = (found["rest"] or "1").split(":")
    try:
        weights = [float(part.removeprefix("te=").removeprefix("unet=")) for part in parts]
    except ValueError as error:
        raise RequestError(f"{found[0]}: a weight is no number", "prompt", "invalid_value") from error
    if len(weights) > 2 or len(set(weights)) > 1:
        raise RequestError(
            f"{found[0]}: text towers and UNet have one weight here, give it once", "prompt", "invalid_value"
        )
    if not abs(weights[0]) <= SCALE:
        raise RequestError(f"{found[0]}: a weight is from {-SCALE:g} to {SCALE:g}", "prompt", "invalid_value")
    return LoraChoice(name=found["name"].strip(), scale=weights[0])


def start_of(body: Img2Img) -> Start:
    """Return the picture to start from. Takes a moment: call it on a thread.

    Raises:
        RequestError: no picture in base64, or a mask of another size.
    """
    data = picture_of(body.init_images[0], "init_images")
    picture = whole(data, "init_images")
    mask = None
    if body.mask:
        image = opened(picture_of(body.mask, "mask"), "mask")
        require_shape(image, picture)
        mask = png(whole_of(image, "mask").convert("L").filter(ImageFilter.GaussianBlur(body.mask_blur)))
    return Start(picture=data, strength=body.denoising_strength, mask=mask)


def info(body: Txt2Img, request: GenerationRequest, made: Generation, infotexts: list[str]) -> str:
    """Return the JSON text of `info`: what was drawn, as A1111's clients read it."""
    name, schedule = a1111_name(request.sampler)
    seeds = [picture.seed for picture in made.pictures]
    return json.dumps(
        {
            "prompt": body.prompt,
            "all_prompts": [body.prompt] * len(seeds),
            "negative_prompt": body.negative_prompt,
            "all_negative_prompts": [body.negative_prompt] * len(seeds),
            "seed": seeds[0],
            "all_seeds": seeds,
            "width": made.size.width,
            "height": made.size.height,
            "sampler_name": name,
            "extra_generation_params": {"Schedule type": schedule},
            "cfg_scale": request.guidance,
            "steps": request.steps,
            "batch_size": body.batch_size,
            "denoising_strength": request.start.strength if request.start else None,
            "styles": body.styles,
            "infotexts": infotexts,
            "index_of_first_image": 0,
        }
    )


def samplers() -> list[dict[str, Any]]:
    """Return the answer of GET /sdapi/v1/samplers."""
    return [{"name": name, "aliases": [ours], "options": {}} for name, ours in A1111.items()]


def schedulers() -> list[dict[str, Any]]:
    """Return the answer of GET /sdapi/v1/schedulers."""
    return [{"name": name.lower(), "label": name, "aliases": None} for name in A1111_SCHEDULERS]
