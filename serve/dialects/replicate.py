"""Replicate's predictions: a model's version, an input, and an object that tells how far it is.

Inputs are those of stability-ai/sdxl on Replicate, with extensions: guidance_rescale, lora, style, priority. What would
change the picture and cannot be honoured here is refused by name.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from serve.dialects.body import (
    PICTURE,
    PICTURE_CHARACTERS,
    SCALE,
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
    unmet,
)
from serve.dialects.samplers import OURS, REPLICATE, named
from serve.errors import RequestError
from serve.offer import Offer
from serve.request import GenerationRequest, LoraChoice, OutputFormat, Priority, Start

OWNER = "ssd1b"
"""Whose the model is in owner/name; any other owner is taken as well."""
EVENTS = ("start", "output", "logs", "completed")
"""What a webhook may be told of."""
WEBHOOK = r"^https?://[A-Za-z0-9_][A-Za-z0-9._-]{0,250}(:[1-9][0-9]{0,4})?(/[!-~]*)?$"
"""An address that may be told: a name or an IPv4 address, perhaps a port, a path."""
COG = "0.14.0"
"""The version of Replicate's packager whose schemas these are; clients read older ones differently."""

Status = Literal["starting", "processing", "succeeded", "failed", "canceled"]


Picture = Annotated[str, WithJsonSchema({"type": "string", **PICTURE})]


class Input(Body):
    """What a prediction is made from."""

    prompt: str = Field(min_length=1, max_length=32_000)
    negative_prompt: str = Field(default="", max_length=32_000)
    image: Picture | None = Field(default=None, max_length=PICTURE_CHARACTERS)
    """A picture to start from: a data: URI, or the URL of a file that was sent to /v1/files here."""
    mask: Picture | None = Field(default=None, max_length=PICTURE_CHARACTERS)
    """White is drawn anew, black is kept; the same size as image, and nothing without one."""
    prompt_strength: float = Field(default=0.8, gt=0, le=1, allow_inf_nan=False)
    """With an image: how much is drawn anew."""
    width: int | None = Field(default=None, gt=0, le=16_384)
    """Pixels, with height; one of the sizes that GET /v1/offer lists."""
    height: int | None = Field(default=None, gt=0, le=16_384)
    num_outputs: int = Field(default=1, ge=1, le=4)
    scheduler: str = Field(default="K_EULER", json_schema_extra={"enum": [*REPLICATE, *OURS]})
    num_inference_steps: int = Field(default=50, ge=1, le=STEPS)
    guidance_scale: float = Field(default=7.5, ge=0, le=50, allow_inf_nan=False)
    seed: int | None = Field(default=None, ge=0, le=SEEDS)
    output_format: OutputFormat = "png"
    output_quality: int = Field(default=95, ge=0, le=100)
    lora: Adapters = None
    """Extension: an adapter's name, {name, scale}, or a list of these."""
    lora_scale: float = Field(default=1.0, ge=-SCALE, le=SCALE, allow_inf_nan=False)
    """Weight of an adapter that is given by its name alone."""
    style: str | None = None
    """Extension: a preset of GET /v1/styles."""
    guidance_rescale: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False)
    priority: Priority = "interactive"
    refine: Literal["no_refiner"] = "no_refiner"
    """There is no refiner here."""
    apply_watermark: bool = True
    """Accepted because clients send it: the watermark is the endpoint's setting."""
    disable_safety_checker: bool = False
    """Accepted because clients send it: the filter is the endpoint's setting."""


NO_SUCH = {
    "replicate_weights": "name a registered adapter by lora",
    "high_noise_frac": "leave it out: there is no refiner here",
    "refine_steps": "leave it out: there is no refiner here",
}


class PredictionBody(Body):
    """Body of POST /v1/predictions and of POST /v1/models/{owner}/{name}/predictions."""

    input: Input
    version: str | None = None
    """Of the model that is served, as GET /v1/models/{owner}/{name} tells it; any of these names it: its id, the
    model's name, owner/name, owner/name:id."""
    webhook: str | None = Field(default=None, max_length=2048, pattern=WEBHOOK)
    """A public address that is told of the prediction, in signed requests."""
    webhook_events_filter: list[Literal["start", "output", "logs", "completed"]] | None = None
    """What the webhook is told of; everything if not given."""
    webhook_completed: str | None = Field(default=None, max_length=2048, pattern=WEBHOOK)
    """The older name of a webhook that is told of the end only."""
    stream: bool = False
    """Accepted because clients send it: every prediction has a stream URL."""


def read(body: bytes) -> PredictionBody:
    """Return the checked request in a body.

    Raises:
        RequestError: no JSON object, an unknown field, or a value that is not allowed.
    """
    fields = fields_of(body)
    given = fields.get("input")
    if isinstance(given, dict):
        for name, fix in NO_SUCH.items():
            if given.get(name) is not None:
                raise unmet(f"input.{name}", given[name], fix)
    request = checked(PredictionBody, fields)
    require_prompt(request.input.prompt, "input.prompt")
    return request


def webhooks(body: PredictionBody) -> list[tuple[str, list[str]]]:
    """Return the addresses to tell, each with what it wants to hear of."""
    told = [(body.webhook, list(body.webhook_events_filter or EVENTS)), (body.webhook_completed, ["completed"])]
    return [(url, events) for url, events in told if url is not None]


def require_version(version: str | None, offer: Offer) -> None:
    """Raise RequestError unless a version is the one that is served."""
    name = f"{OWNER}/{offer.model}"
    ids = (None, offer.version, offer.model, name, f"{name}:{offer.version}")
    if version not in ids:
        raise RequestError(
            f"The version '{version}' is not served here: this endpoint serves {name}, version '{offer.version}'",
            "version",
            "version_not_found",
            422,
        )


def to_request(told: Input, start: Start | None) -> GenerationRequest:
    """Return what an input asks for; its seed must have been drawn (`with_seed`).

    Raises:
        RequestError: a scheduler that there is none of here.
    """
    assert told.seed is not None, "with_seed comes first"
    plain = {one for one in (told.lora if isinstance(told.lora, list) else [told.lora]) if isinstance(one, str)}
    loras = tuple(
        LoraChoice(name=one.name, scale=told.lora_scale) if one.name in plain else one for one in choices(told.lora)
    )
    return GenerationRequest(
        prompt=told.prompt,
        negative_prompt=told.negative_prompt,
        n=told.num_outputs,
        size=sized(told.width, told.height),
        seed=told.seed,
        steps=told.num_inference_steps,
        guidance=told.guidance_scale,
        rescale=told.guidance_rescale,
        sampler=named(told.scheduler, REPLICATE, "scheduler"),
        loras=loras,
        start=start,
        style=told.style,
        priority=told.priority,
        output_format=told.output_format,
        output_compression=told.output_quality,
    )


def with_seed(told: Input, spare: int | None = None) -> Input:
    """Return the input with a seed, so that it draws the same however often it is issued."""
    return told.model_copy(update={"seed": drawn_seed(told.seed, spare)})


def progress_line(made: int, of: int) -> str:
    """Return a line of `logs` in the shape that Replicate's client reads progress from."""
    filled = 10 * made // of
    return f"{100 * made // of:3d}%|{'█' * filled}{' ' * (10 - filled)}| {made}/{of}\n"


def to_model(offer: Offer, url: str, created_at: str) -> dict[str, Any]:
    """Return the model object."""
    return {
        "url": url,
        "owner": OWNER,
        "name": offer.model,
        "description": "A text-to-image model of the SSD-1B class",
        "visibility": "private",
        "github_url": None,
        "paper_url": None,
        "license_url": None,
        "run_count": 0,
        "cover_image_url": None,
        "default_example": None,
        "latest_version": to_version(offer, created_at),
    }


def to_version(offer: Offer, created_at: str) -> dict[str, Any]:
    """Return the version object."""
    output = {"type": "array", "title": "Output", "items": {"type": "string", "format": "uri"}}
    schema = Input.model_json_schema()
    definitions = schema.pop("$defs", {})
    return {
        "id": offer.version,
        "created_at": created_at,
        "cog_version": COG,
        "openapi_schema": {"components": {"schemas": {"Input": schema, "Output": output, **definitions}}},
    }
