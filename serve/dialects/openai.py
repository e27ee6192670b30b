"""OpenAI's Images API: its request, response and error objects, with the extension fields that others use too.

Field names and values follow openai-python (types/image_generate_params.py, images_response.py). Extensions, passed by
the SDK's `extra_body`: negative_prompt, num_inference_steps, guidance_scale, seed, sampler, lora.
"""

import base64
import json
import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serve.answer import Generation
from serve.errors import RequestError
from serve.offer import Offer
from serve.request import GenerationRequest, LoraChoice, OutputFormat
from ssd1b.command import nearest
from ssd1b.sizes import Size

STEPS = {"low": 10, "medium": 20, "high": 40}
"""What `quality` means here: denoising steps, unless num_inference_steps is given."""
QUALITY = {"low": "low", "medium": "medium", "high": "high", "auto": "medium", "standard": "medium", "hd": "high"}
SEEDS = 2**53 - 1
"""Largest seed: every JSON reader keeps it exact."""


class LoraField(BaseModel):
    """An adapter by name, with its scale."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    scale: Annotated[float, Field(ge=-4, le=4, allow_inf_nan=False)] = 1.0


class ImageRequest(BaseModel):
    """Body of POST /v1/images/generations."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: Annotated[str, Field(min_length=1, max_length=32_000)]
    model: str | None = None
    n: Annotated[int, Field(ge=1, le=10)] = 1
    size: str = "auto"
    quality: Literal["auto", "low", "medium", "high", "standard", "hd"] = "auto"
    response_format: Literal["b64_json"] = "b64_json"
    output_format: OutputFormat = "png"
    output_compression: Annotated[int, Field(ge=0, le=100)] = 100
    background: Literal["auto", "opaque"] = "auto"
    moderation: Literal["auto", "low"] = "auto"
    """Accepted because clients send it: nothing is moderated here."""
    stream: Literal[False] = False
    partial_images: Literal[0] = 0
    user: str | None = None
    """Accepted because clients send it: there are no accounts here."""
    negative_prompt: Annotated[str, Field(max_length=32_000)] = ""
    num_inference_steps: Annotated[int, Field(ge=1, le=100)] | None = None
    guidance_scale: Annotated[float, Field(ge=0, le=30, allow_inf_nan=False)] = 5.0
    seed: Annotated[int, Field(ge=0, le=SEEDS)] | None = None
    sampler: str = "euler"
    lora: str | LoraField | None = None


def read(body: bytes) -> ImageRequest:
    """Return the checked request in a body.

    Raises:
        RequestError: no JSON object, an unknown field, or a value that is not allowed.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The body is not JSON: {error}", None, "invalid_json") from error
    if not isinstance(fields, dict):
        raise RequestError(
            'The body must be one JSON object, for example {"prompt": "a red apple"}', None, "invalid_json"
        )
    refuse_later(fields)
    try:
        # A null stands for "not given", as in OpenAI's own schema.
        request = ImageRequest.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        raise refusal(error) from error
    if not request.prompt.strip():
        raise RequestError("prompt is empty: say what to draw", "prompt", "invalid_value")
    return request


def refuse_later(fields: dict[str, Any]) -> None:
    """Name what OpenAI has and this endpoint has not, in words better than "input should be False"."""
    if fields.get("stream") or fields.get("partial_images"):
        param = "stream" if fields.get("stream") else "partial_images"
        raise RequestError("Streaming is not offered: leave out stream and partial_images", param, "unsupported_value")
    if fields.get("response_format") == "url":
        raise RequestError(
            "response_format 'url' is not offered: use 'b64_json'", "response_format", "unsupported_value"
        )
    if fields.get("background") == "transparent":
        raise RequestError("Pictures have no transparency: use background 'opaque'", "background", "unsupported_value")
    if fields.get("style") is not None:
        raise RequestError("style is not offered: say the style in the prompt", "style", "unsupported_parameter")


def refusal(error: ValidationError) -> RequestError:
    """Say the first thing that is wrong in OpenAI's terms."""
    first = error.errors()[0]
    name, param = str(first["loc"][0]), ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        return RequestError(
            f"Unknown parameter: '{name}'{nearest(name, list(ImageRequest.model_fields))}", name, "unknown_parameter"
        )
    if name == "lora":
        return RequestError('lora must be a name, or {"name": "...", "scale": -4 to 4}', "lora", "invalid_value")
    if first["type"] == "missing":
        return RequestError(f"Missing required parameter: '{param}'", param, "missing_required_parameter")
    return RequestError(f"Invalid value for '{param}': {first['msg']}", param, "invalid_value")


def to_request(image: ImageRequest, model: str) -> GenerationRequest:
    """Return what the body asks of the model served here under the name `model`.

    `<model>-lora-<name>` is that model with an adapter: GET /v1/models lists them so. A request without a seed gets one
    here, before anything can fail, so that it can be issued again and draw the same.

    Raises:
        RequestError: another model, or two different adapters, or a size that is not written as one.
    """
    choice = lora_choice(image.lora)
    if image.model is not None and image.model != model:
        prefix = lora_model(model, "")
        if not image.model.startswith(prefix):
            raise RequestError(
                f"The model '{image.model}' does not exist; this endpoint serves '{model}'",
                "model",
                "model_not_found",
                404,
            )
        name = image.model.removeprefix(prefix)
        if choice and choice.name != name:
            raise RequestError(
                f"model asks for the LoRA '{name}', lora for '{choice.name}': give one", "lora", "conflict"
            )
        choice = choice or LoraChoice(name=name)
    return GenerationRequest(
        prompt=image.prompt,
        negative_prompt=image.negative_prompt,
        n=image.n,
        size=None if image.size == "auto" else size_of(image.size),
        seed=secrets.randbelow(2**32) if image.seed is None else image.seed,
        steps=image.num_inference_steps or STEPS[QUALITY[image.quality]],
        guidance=image.guidance_scale,
        sampler=image.sampler,
        loras=(choice,) if choice else (),
        output_format=image.output_format,
        output_compression=image.output_compression,
    )


def lora_choice(field: str | LoraField | None) -> LoraChoice | None:
    if isinstance(field, LoraField):
        return LoraChoice(name=field.name, scale=field.scale)
    return LoraChoice(name=field) if field else None


def lora_model(model: str, lora: str) -> str:
    return f"{model}-lora-{lora}"


def size_of(text: str) -> Size:
    try:
        return Size.parse(text)
    except ValueError as error:
        raise RequestError(str(error), "size", "invalid_value") from error


def to_response(image: ImageRequest, generation: Generation, created: int) -> dict[str, Any]:
    """Return the ImagesResponse object; `seed` beside each picture is an extension, to draw it again.

    Counted as output tokens: latent positions. There are no image inputs, so input tokens are text tokens.
    """
    text, output = generation.prompt_tokens, generation.latent_tokens
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
        "usage": {
            "input_tokens": text,
            "input_tokens_details": {"image_tokens": 0, "text_tokens": text},
            "output_tokens": output,
            "output_tokens_details": {"image_tokens": output, "text_tokens": 0},
            "total_tokens": text + output,
        },
    }


def to_models(offer: Offer) -> dict[str, Any]:
    """Return the list object of GET /v1/models: the model, then it with each adapter (`parent` as in vLLM)."""
    names: Sequence[tuple[str, str | None]] = [(offer.model, None)]
    names = [*names, *((lora_model(offer.model, lora), offer.model) for lora in offer.loras)]
    return {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": offer.created, "owned_by": "ssd1b", "parent": parent}
            for name, parent in names
        ],
    }
