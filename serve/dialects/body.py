"""What the dialects' bodies share: how JSON is read and refused, pictures inside JSON, sizes, seeds."""

import base64
import binascii
import json
import secrets
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from serve.errors import RequestError
from serve.request import LoraChoice
from ssd1b.command import nearest
from ssd1b.sizes import Size

SEEDS = 2**53 - 1
"""Largest seed: every JSON reader keeps it exact."""
PICTURES = 10
"""Most pictures of one request."""
STEPS = 100
"""Most denoising steps of one picture."""
PICTURE_BYTES = 50_000_000
"""Largest picture file to start from, OpenAI's limit."""
PICTURE = {"format": "picture"}
"""In a schema: a PNG, JPEG or WebP file in base64, with or without a data: head."""
PICTURE_CHARACTERS = 4 * (PICTURE_BYTES // 3 + 1) + 100
"""The same in base64, with a data: head."""
TOLD = ("title", "description", "default", "examples")
"""What a schema says of a field as a whole, whichever of several kinds its value has."""
LORAS = 8
"""Most adapters of one request."""
SCALE = 4.0
"""Largest weight of an adapter, either way."""


def nullable(schema: dict[str, Any]) -> None:
    """Say in a schema what `Body` does: a null stands for a field that is not given."""
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        if name not in required and field != {}:
            told = {key: field.pop(key) for key in TOLD if key in field}
            schema["properties"][name] = {"anyOf": [field, {"type": "null"}], **told}


def whole(value: Any) -> Any:
    """Return 3 for 3.0: JSON has one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Body(BaseModel):
    """A JSON object whose fields are all known, with nothing converted; a null stands for "not given"."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra=nullable, use_attribute_docstrings=True, frozen=True
    )

    @model_validator(mode="before")
    @classmethod
    def without_nulls(cls, fields: Any) -> Any:
        if isinstance(fields, dict):
            return {name: whole(value) for name, value in fields.items() if value is not None}
        return fields


class LoraField(BaseModel):
    """An adapter by name, with its scale."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str = Field(min_length=1)
    scale: float = Field(default=1.0, ge=-SCALE, le=SCALE, allow_inf_nan=False)

    def choice(self) -> LoraChoice:
        return LoraChoice(name=self.name, scale=self.scale)


Adapters = str | LoraField | Annotated[list[str | LoraField], Field(max_length=LORAS)] | None
"""A field that names adapters."""

Fields = TypeVar("Fields", bound=BaseModel)


def fields_of(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body.

    Raises:
        RequestError: there is none.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The body is not JSON: {error}", None, "invalid_json") from error
    if not isinstance(fields, dict):
        raise RequestError(
            'The body must be one JSON object, for example {"prompt": "a red apple"}', None, "invalid_json"
        )
    return fields


def checked(model: type[Fields], fields: Mapping[str, Any]) -> Fields:
    """Return the fields as the model has them.

    Raises:
        RequestError: an unknown field, or a value that is not allowed.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise refusal(error, model) from error


def refusal(error: ValidationError, model: type[BaseModel]) -> RequestError:
    """Say the first thing that is wrong, in OpenAI's terms."""
    first = error.errors()[0]
    name, param = str(first["loc"][0]) if first["loc"] else "", ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        return RequestError(
            f"Unknown parameter: '{name}'{nearest(name, list(model.model_fields))}", name, "unknown_parameter"
        )
    if first["type"] == "missing":
        return RequestError(f"Missing required parameter: '{param}'", param, "missing_required_parameter")
    if name in ("lora", "loras"):
        return RequestError(
            f'{name} must be a name, or {{"name": "...", "scale": -4 to 4}}, or a list of at most {LORAS} such',
            name,
            "invalid_value",
        )
    return RequestError(f"Invalid value for '{param}': {first['msg']}", param or None, "invalid_value")


def require_prompt(prompt: str, param: str = "prompt") -> str:
    if not prompt.strip():
        raise RequestError(f"{param} is empty: say what to draw", param, "invalid_value")
    return prompt


def unmet(name: str, value: object, fix: str) -> RequestError:
    """The refusal of a field that would change the picture and cannot be honoured here."""
    return RequestError(f"{name}={value!r} is not offered: {fix}", name, "unsupported_parameter")


def drawn_seed(seed: int | None, spare: int | None = None) -> int:
    """Return the seed; without one the spare, which an idempotency key gives, or one drawn now.

    Now is before anything can fail, so that the request can be issued again.
    """
    if seed is not None and seed != -1:
        return seed
    return secrets.randbelow(2**32) if spare is None else spare


def sized(width: int | None, height: int | None) -> Size | None:
    """Return the size, or None for the model's own where no side is given; a side alone is that of a square."""
    if width is None and height is None:
        return None
    return Size(height or width or 0, width or height or 0)


def choices(asked: Adapters) -> tuple[LoraChoice, ...]:
    """Return the adapters that a field `lora` names.

    Raises:
        RequestError: too many.
    """
    listed = asked if isinstance(asked, list) else [asked] if asked else []
    return distinct((LoraChoice(name=one) if isinstance(one, str) else one.choice() for one in listed), "lora")


def distinct(loras: Iterable[LoraChoice], param: str) -> tuple[LoraChoice, ...]:
    """Return the adapters, each once; one that is named twice acts with both scales, so with their sum.

    Raises:
        RequestError: too many.
    """
    found: dict[str, LoraChoice] = {}
    for lora in loras:
        before = found.get(lora.name)
        found[lora.name] = lora if before is None else LoraChoice(name=lora.name, scale=before.scale + lora.scale)
    if len(found) > LORAS:
        raise RequestError(f"{param} names {len(found)} adapters; at most {LORAS} act together", param, "invalid_value")
    return tuple(found.values())


def picture_of(text: str, param: str) -> bytes:
    """Return the bytes of a picture that stands in JSON: a data: URI, or base64 alone.

    Raises:
        RequestError: neither. A URL is not fetched: it could name the cluster's own machines.
    """
    head, comma, rest = text.partition(",")
    if "://" in text[:16] or (text.startswith("data:") and not (comma and head.endswith(";base64"))):
        raise RequestError(
            f"{param} must hold the picture itself, base64 or data:image/png;base64,...: URLs are not fetched",
            param,
            "invalid_value",
        )
    try:
        data = base64.b64decode(rest if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"{param} is not base64: {error}", param, "invalid_value") from error
    if len(data) > PICTURE_BYTES:
        raise RequestError(f"{param} is larger than {PICTURE_BYTES} bytes", param, "request_too_large", 413)
    return data


def data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
