"""Hugging Face's text-to-image task: {inputs, parameters} -> the bytes of a picture.

Parameters as in @huggingface/tasks. `scheduler` is a class of diffusers, or one of our own names where a class has no
options. Extensions, beside them as InferenceClient's extra_body puts them: lora, style, sampler.
"""

from pydantic import ConfigDict, Field

from serve.dialects.body import (
    SEEDS,
    STEPS,
    Adapters,
    Body,
    checked,
    choices,
    drawn_seed,
    fields_of,
    require_prompt,
    sized,
)
from serve.dialects.samplers import DIFFUSERS, OURS, named
from serve.errors import RequestError
from serve.request import GenerationRequest, OutputFormat

ACCEPT: tuple[tuple[str, OutputFormat], ...] = (("image/png", "png"), ("image/jpeg", "jpeg"), ("image/webp", "webp"))
"""What an Accept header may name, the first as default."""


class Parameters(Body):
    """What may be said beside the prompt."""

    guidance_scale: float = Field(default=5.0, ge=0, le=30, allow_inf_nan=False)
    negative_prompt: str = Field(default="", max_length=32_000)
    num_inference_steps: int = Field(default=20, ge=1, le=STEPS)
    width: int | None = Field(default=None, gt=0, le=16_384)
    """Pixels, with height; one of the sizes that GET /v1/offer lists."""
    height: int | None = Field(default=None, gt=0, le=16_384)
    scheduler: str = Field(default="EulerDiscreteScheduler", json_schema_extra={"enum": [*DIFFUSERS, *OURS]})
    seed: int | None = Field(default=None, ge=0, le=SEEDS)
    lora: Adapters = None
    """Extension: an adapter's name, {name, scale}, or a list of these."""
    style: str | None = None
    """Extension: a preset of GET /v1/styles."""


class TextToImage(Body):
    """Body of POST / and POST /models/{model}."""

    model_config = ConfigDict(title="TextToImage")

    inputs: str = Field(min_length=1, max_length=32_000)
    """The prompt."""
    parameters: Parameters = Parameters()


def read(body: bytes) -> TextToImage:
    """Return the checked request in a body.

    Raises:
        RequestError: no JSON object, an unknown field, or a value that is not allowed.
    """
    request = checked(TextToImage, fields_of(body))
    require_prompt(request.inputs, "inputs")
    return request


def to_request(body: TextToImage, output_format: OutputFormat = "png", spare: int | None = None) -> GenerationRequest:
    """Return what the body asks for; `spare` is the seed of a body without one.

    Raises:
        RequestError: a scheduler that there is none of here.
    """
    told = body.parameters
    return GenerationRequest(
        prompt=body.inputs,
        negative_prompt=told.negative_prompt,
        size=sized(told.width, told.height),
        seed=drawn_seed(told.seed, spare),
        steps=told.num_inference_steps,
        guidance=told.guidance_scale,
        sampler=named(told.scheduler, DIFFUSERS, "scheduler"),
        loras=choices(told.lora),
        style=told.style,
        output_format=output_format,
    )


def format_of(accept: str) -> OutputFormat:
    """Return the picture format that an Accept header asks for.

    Raises:
        RequestError: 406, none of those that are made here.
    """
    named_types = [part.partition(";")[0].strip().lower() for part in accept.split(",") if part.strip()]
    for kind in named_types or ["*/*"]:
        if kind in ("*/*", "image/*"):
            return "png"
        for known, form in ACCEPT:
            if kind == known:
                return form
    offered = ", ".join(known for known, _ in ACCEPT)
    raise RequestError(f"Accept '{accept[:100]}' names no picture that is made here: {offered}", None, "accept", 406)
