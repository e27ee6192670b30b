"""OpenAI's Images API: its request, response, event and error objects, with the extension fields that others use too.

Field names and values follow openai-python (types/image_generate_params.py, images_response.py, image_gen_*_event.py).
Extensions, passed by the SDK's `extra_body`: negative_prompt, num_inference_steps, guidance_scale, guidance_rescale,
seed, sampler, lora, priority, and `style` by the name of any preset.
"""

import base64
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import Field

from serve.answer import Generation, Preview
from serve.dialects.body import (
    PICTURES,
    SEEDS,
    STEPS,
    Adapters,
    Body,
    checked,
    choices,
    drawn_seed,
    fields_of,
    require_prompt,
)
from serve.errors import RequestError
from serve.offer import Offer
from serve.request import GenerationRequest, LoraChoice, OutputFormat, Priority, Start
from ssd1b.sizes import Size

QUALITY_STEPS = {"low": 10, "medium": 20, "high": 40}
"""What `quality` means here: denoising steps, unless num_inference_steps is given."""
QUALITY = {"low": "low", "medium": "medium", "high": "high", "auto": "medium", "standard": "medium", "hd": "high"}
NO_PRESET = ("vivid", "natural")
"""OpenAI's own values of style, which steer its models and say nothing to this one."""


class Drawing(Body):
    """What a generation and an edit have in common."""

    prompt: str = Field(min_length=1, max_length=32_000, examples=["a red apple, flat vector style"])
    """What to draw. (word:1.3) weighs."""
    model: str | None = None
    """The model of GET /v1/models, or it with an adapter: `<model>-lora-<name>`."""
    n: int = Field(default=1, ge=1, le=PICTURES)
    """How many pictures; picture i has seed + i."""
    size: str = Field(default="auto", json_schema_extra={"pattern": r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$"})
    """WIDTHxHEIGHT in pixels, one that GET /v1/offer lists, or auto."""
    quality: Literal["auto", "low", "medium", "high", "standard", "hd"] = "auto"
    """Denoising steps: low 10, medium 20, high 40."""
    response_format: Literal["b64_json"] = "b64_json"
    output_format: OutputFormat = "png"
    output_compression: int = Field(default=100, ge=0, le=100)
    """Quality of JPEG and WebP, per cent."""
    background: Literal["auto", "opaque"] = "auto"
    stream: bool = False
    """Answer with server-sent events."""
    partial_images: int = Field(default=0, ge=0, le=3)
    """Pictures in the making to send on the way, for each of n; without stream there is no way to send them on."""
    user: str | None = None
    """Accepted because clients send it; accounts go by their key."""
    negative_prompt: str = Field(default="", max_length=32_000)
    """Extension: what not to draw."""
    num_inference_steps: int | None = Field(default=None, ge=1, le=STEPS)
    """Extension: denoising steps."""
    guidance_scale: float = Field(default=5.0, ge=0, le=30, allow_inf_nan=False)
    """Extension: weight of classifier-free guidance."""
    guidance_rescale: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False)
    """Extension: draws the guided prediction's spread back to the unguided one's."""
    seed: int | None = Field(default=None, ge=0, le=SEEDS)
    """Extension: seed of the first picture; drawn at random if not given, and told in the answer."""
    sampler: str = "euler"
    """Extension: one that GET /v1/offer lists."""
    lora: Adapters = None
    """Extension: an adapter's name, {name, scale}, or a list of these that act together."""
    priority: Priority = "interactive"
    """Extension: batch work waits while there is interactive work."""


class ImageRequest(Drawing):
    """Body of POST /v1/images/generations."""

    moderation: Literal["auto", "low"] = "auto"
    """Accepted because clients send it: what is moderated is the endpoint's setting."""
    style: str | None = None
    """A preset of GET /v1/styles; OpenAI's own vivid and natural stand for none."""


def read(body: bytes) -> ImageRequest:
    """Return the checked request in a body.

    Raises:
        RequestError: no JSON object, an unknown field, or a value that is not allowed.
    """
    fields = fields_of(body)
    refuse_missing(fields)
    image = checked(ImageRequest, fields)
    require_prompt(image.prompt)
    return image


def refuse_missing(fields: dict[str, Any]) -> None:
    """Name what OpenAI has and this endpoint has not, in words better than "input should be 'b64_json'"."""
    if fields.get("response_format") == "url":
        raise RequestError(
            "response_format 'url' is not offered: use 'b64_json'", "response_format", "unsupported_value"
        )
    if fields.get("background") == "transparent":
        raise RequestError("Pictures have no transparency: use background 'opaque'", "background", "unsupported_value")


def style_of(style: str | None) -> str | None:
    return None if style in NO_PRESET else style


def to_request(
    image: Drawing, model: str, *, style: str | None = None, start: Start | None = None, spare: int | None = None
) -> GenerationRequest:
    """Return what the body asks of the model served here under the name `model`.

    `<model>-lora-<name>` is that model with an adapter: GET /v1/models lists them so. A request without a seed gets
    the spare one, or one drawn here, before anything can fail, so that it can be issued again and draw the same.

    Raises:
        RequestError: another model, too many adapters, or a size that is not written as one.
    """
    return GenerationRequest(
        prompt=image.prompt,
        negative_prompt=image.negative_prompt,
        n=image.n,
        size=None if image.size == "auto" else size_of(image.size),
        seed=drawn_seed(image.seed, spare),
        steps=image.num_inference_steps or QUALITY_STEPS[QUALITY[image.quality]],
        guidance=image.guidance_scale,
        rescale=image.guidance_rescale,
        sampler=image.sampler,
        loras=loras_of(image, model),
        start=start,
        style=style_of(style),
        previews=image.partial_images if image.stream else 0,
        priority=image.priority,
        output_format=image.output_format,
        output_compression=image.output_compression,
    )


def loras_of(image: Drawing, model: str) -> tuple[LoraChoice, ...]:
    """Return the adapters that `lora` and `model` name.

    Raises:
        RequestError: another model, or too many adapters.
    """
    if image.model is None or image.model == model:
        return choices(image.lora)
    prefix = lora_model(model, "")
    if not image.model.startswith(prefix):
        raise RequestError(
            f"The model '{image.model}' does not exist; this endpoint serves '{model}'", "model", "model_not_found", 404
        )
    loras = choices(image.lora)
    name = image.model.removeprefix(prefix)
    return loras if any(lora.name == name for lora in loras) else (LoraChoice(name=name), *loras)


def lora_model(model: str, lora: str) -> str:
    return f"{model}-lora-{lora}"


def size_of(text: str) -> Size:
    try:
        return Size.parse(text)
    except ValueError as error:
        raise RequestError(str(error), "size", "invalid_value") from error


def to_response(image: Drawing, generation: Generation, created: int) -> dict[str, Any]:
    """Return the ImagesResponse object; `seed` beside each picture is an extension, to draw it again."""
    return {
        "created": created,
        "data": [
            {"b64_json": base64.b64encode(picture.data).decode(), "seed": picture.seed}
            for picture in generation.pictures
        ],
        "background": "opaque",
        "output_format": image.output_format,
        "quality": QUALITY[image.quality],
        "size": str(generation.size),
        "usage": usage(generation.prompt_tokens, generation.latent_tokens),
    }


def usage(text: int, output: int) -> dict[str, Any]:
    """Return OpenAI's usage object.

    Counted as output tokens: latent positions. A picture to start from is not charged by tokens, so that input tokens
    are text tokens.
    """
    return {
        "input_tokens": text,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": text},
        "output_tokens": output,
        "output_tokens_details": {"image_tokens": output, "text_tokens": 0},
        "total_tokens": text + output,
    }


Kind = Literal["image_generation", "image_edit"]
"""First part of the event types."""


def partial_event(kind: Kind, image: Drawing, preview: Preview, size: Size, created: int) -> dict[str, Any]:
    """Return a partial_image event. `image_index` is an extension: which of n pictures, which OpenAI leaves unsaid."""
    return {
        "type": f"{kind}.partial_image",
        "b64_json": base64.b64encode(preview.data).decode(),
        "partial_image_index": preview.index,
        "image_index": preview.picture,
        **about(image, size, created),
    }


def completed_events(kind: Kind, image: Drawing, generation: Generation, created: int) -> Iterator[dict[str, Any]]:
    """Yield a completed event for each picture; their usages sum to the request's, its text counted in the first."""
    for index, picture in enumerate(generation.pictures):
        yield {
            "type": f"{kind}.completed",
            "b64_json": base64.b64encode(picture.data).decode(),
            "image_index": index,
            "seed": picture.seed,
            **about(image, generation.size, created),
            "usage": usage(
                generation.prompt_tokens if index == 0 else 0, generation.latent_tokens // len(generation.pictures)
            ),
        }


def about(image: Drawing, size: Size, created: int) -> dict[str, Any]:
    return {
        "background": "opaque",
        "created_at": created,
        "output_format": image.output_format,
        "quality": QUALITY[image.quality],
        "size": str(size),
    }


def to_models(offer: Offer) -> list[dict[str, Any]]:
    """Return the model objects of GET /v1/models: the model, then it with each adapter (`parent` as in vLLM)."""
    names: Sequence[tuple[str, str | None]] = [(offer.model, None)]
    names = [*names, *((lora_model(offer.model, lora), offer.model) for lora in offer.loras)]
    return [
        {"id": name, "object": "model", "created": offer.created, "owned_by": "ssd1b", "parent": parent}
        for name, parent in names
    ]
