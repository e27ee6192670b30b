"""OpenAI's image edits: a form with a picture to start from, perhaps a mask, and the fields of a generation.

Without a mask the whole picture is drawn anew as far as `strength` says, an extension; `input_fidelity` chooses it
where it is not given. With a mask what is masked is drawn anew whole, unless a strength is given. Fields of a form are
text, so that numbers and flags are read from it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from serve.dialects.body import TOLD, checked, require_prompt
from serve.dialects.openai import Drawing, refuse_missing
from serve.dialects.pictures import opened, require_shape, white_where_clear, whole
from serve.errors import RequestError
from serve.request import Start

FIDELITY_STRENGTH = {"low": 0.8, "high": 0.5}
"""How much is drawn anew where no strength is given."""
MASK_BYTES = 4_000_000
"""OpenAI's limit."""
ARRAY = re.compile(r"(?P<name>\w+)\[(?P<key>\w*)\]")
"""How the SDK writes lists and objects into a form: lora[]=a, lora[name]=a."""
WHOLE = re.compile(r"^(-?\d+)\.0+$")
"""A whole number with a point, as it may come from JSON."""
FLAGS = {"true": True, "false": False}
STRUCTURED = ("lora",)
"""Fields whose text may be JSON."""


def textual(schema: dict[str, Any]) -> None:
    """Take null out of a schema, since a form has none; instead, a field that is empty is one that is not given."""
    fields = schema.get("properties", {})
    for name, field in fields.items():
        if "anyOf" in field:
            branches = [branch for branch in field.pop("anyOf") if branch != {"type": "null"}]
            field |= branches[0] if len(branches) == 1 else {"anyOf": branches}
        if field.get("default", ...) is None:
            del field["default"]
        if name not in schema.get("required", []) and field.get("format") != "binary":
            told = {key: field.pop(key) for key in TOLD if key in field}
            fields[name] = {"anyOf": [*field.pop("anyOf", [field]), {"const": ""}], **told}


class EditRequest(Drawing):
    """The text fields of POST /v1/images/edits."""

    model_config = ConfigDict(strict=False, json_schema_extra=textual)

    stream: bool = Field(default=False, strict=True)
    """Answer with server-sent events."""
    strength: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    """Extension: how much of the way is drawn anew, above 0 to 1."""
    input_fidelity: Literal["low", "high"] = "low"
    """Strength where none is given: low 0.8, high 0.5."""
    style: str | None = None
    """A preset of GET /v1/styles."""


File = Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary"})]


class EditForm(EditRequest):
    """The whole form of POST /v1/images/edits, for the document."""

    image: File
    """The picture to start from: PNG, JPEG or WebP."""
    mask: File | None = None
    """A PNG of the same size, transparent where to draw anew."""


def read(fields: Sequence[tuple[str, str]]) -> EditRequest:
    """Return the checked text fields of the form.

    Raises:
        RequestError: an unknown field, or a value that is not allowed.
    """
    found = structured(fields)
    refuse_missing(found)
    edit = checked(EditRequest, found)
    require_prompt(edit.prompt)
    return edit


def structured(fields: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return form fields as an object: repeated and bracketed names as the lists and objects that they stand for."""
    found: dict[str, Any] = {}
    for key, text in fields:
        match = ARRAY.fullmatch(key)
        name, inner = (match["name"], match["key"]) if match else (key, None)
        value: Any = FLAGS.get(text.lower(), text) if name == "stream" else WHOLE.sub(r"\1", text)
        if name in STRUCTURED:
            value = from_json(name, text)
        if inner:
            inside = found.setdefault(name, {})
            if not isinstance(inside, dict):
                raise RequestError(f"'{name}' is given both as a value and as an object", name, "invalid_value")
            inside[inner] = text if inner == "name" else from_json(name, text)
        elif inner == "" or (name in found and name in STRUCTURED):
            listed = found.setdefault(name, [])
            found[name] = [*(listed if isinstance(listed, list) else [listed]), value]
        elif name in found:
            raise RequestError(f"'{name}' is given twice", name, "invalid_value")
        elif text != "" or name == "prompt":  # an empty form field is one not filled in
            found[name] = value
    return found


def from_json(name: str, text: str) -> Any:
    if not text.startswith(("{", "[")) and not re.fullmatch(r"-?\d+(\.\d+)?", text):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"'{name}' is not JSON: {error}", name, "invalid_value") from error


def start_of(edit: EditRequest, files: Mapping[str, Sequence[bytes]]) -> Start:
    """Return the picture to start from. Takes a moment: call it on a thread.

    Raises:
        RequestError: no picture, several, or files that are none.
    """
    unknown = next((name for name in files if name not in ("image", "image[]", "mask")), None)
    if unknown is not None:
        raise RequestError(f"Unknown file: '{unknown}'; send image and mask", unknown, "unknown_parameter")
    pictures, masks = [*files.get("image", ()), *files.get("image[]", ())], files.get("mask", ())
    if len(pictures) != 1 or len(masks) > 1:
        param = "image" if len(pictures) != 1 else "mask"
        raise RequestError(
            f"{len(pictures)} images and {len(masks)} masks were sent: send one image and at most one mask",
            param,
            "invalid_value" if pictures else "missing_required_parameter",
        )
    picture = whole(pictures[0], "image")
    mask = None
    if masks:
        if len(masks[0]) > MASK_BYTES:
            raise RequestError(f"mask is larger than {MASK_BYTES} bytes", "mask", "request_too_large", 413)
        require_shape(opened(masks[0], "mask"), picture)
        mask = white_where_clear(whole(masks[0], "mask"))
    strength = FIDELITY_STRENGTH[edit.input_fidelity] if edit.strength is None else edit.strength
    if mask is not None and edit.strength is None:
        strength = 1.0
    return Start(picture=pictures[0], strength=strength, mask=mask)
