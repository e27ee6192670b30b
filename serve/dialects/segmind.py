"""Segmind's POST /v1/ssd-1b, the API that the model was first served by.

Its pages disagree about the defaults. Followed here is the newer one, the OpenAPI description: DPM Multi, 45 steps,
guidance 7, one sample, "blurry,out of focus" as the negative prompt; but a seed that is not given is drawn at random,
as in the older page, rather than 9876543210 for everybody. Sizes are the model's: its first one where none is given
(Segmind's 1024 for SSD-1B).
"""

import base64
from typing import Any

from pydantic import Field

from serve.answer import Generation
from serve.dialects.body import Body, checked, drawn_seed, fields_of, require_prompt, sized
from serve.dialects.samplers import SEGMIND, named
from serve.request import GenerationRequest

SEEDS = 999_999_999_999_999


class SsdRequest(Body):
    """Body of POST /v1/ssd-1b."""

    prompt: str = Field(min_length=1, max_length=32_000)
    negative_prompt: str = Field(default="blurry,out of focus", max_length=32_000)
    samples: int = Field(default=1, ge=1, le=4)
    """How many pictures; more than one come as JSON in any case, since a JPEG holds one."""
    scheduler: str = Field(default="DPM Multi", json_schema_extra={"enum": list(SEGMIND)})
    num_inference_steps: int = Field(default=45, ge=20, le=100)
    guidance_scale: float = Field(default=7.0, ge=1, le=25, allow_inf_nan=False)
    seed: int = Field(default=-1, ge=-1, le=SEEDS)
    """-1 draws one at random."""
    img_width: int | None = Field(default=None, gt=0, le=16_384)
    """Pixels, with img_height; one of the sizes that GET /v1/offer lists."""
    img_height: int | None = Field(default=None, gt=0, le=16_384)
    base64: bool = False
    """Answer with JSON rather than with image/jpeg."""


def read(body: bytes) -> SsdRequest:
    """Return the checked request in a body.

    Raises:
        RequestError: no JSON object, an unknown field, or a value that is not allowed.
    """
    request = checked(SsdRequest, fields_of(body))
    require_prompt(request.prompt)
    return request


def to_request(body: SsdRequest, spare: int | None = None) -> GenerationRequest:
    """Return what the body asks for; `spare` is the seed of a body without one.

    Raises:
        RequestError: a scheduler that there is none of here.
    """
    return GenerationRequest(
        prompt=body.prompt,
        negative_prompt=body.negative_prompt,
        n=body.samples,
        size=sized(body.img_width, body.img_height),
        seed=drawn_seed(body.seed, spare),
        steps=body.num_inference_steps,
        guidance=body.guidance_scale,
        sampler=named(body.scheduler, SEGMIND, "scheduler"),
        output_format="jpeg",
        output_compression=95,
    )


def to_json(made: Generation) -> dict[str, Any]:
    """Return the answer in JSON: `image` for one sample, `images` for several."""
    pictures = [base64.b64encode(picture.data).decode() for picture in made.pictures]
    return {"image": pictures[0]} if len(pictures) == 1 else {"images": pictures}
