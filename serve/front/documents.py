"""What the endpoint says of itself: the OpenAPI document, narrowed to what the model offers now, and a page of it.

The page is plain HTML, so that it needs no script from elsewhere and reads on a machine without a network.
"""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serve.dialects.openai import lora_model
from serve.front.once import HEADER, SCHEMA
from serve.front.refusals import HOUSE, SHAPES
from serve.offer import Offer

Document = dict[str, Any]
REF = "#/components/schemas/{model}"
PICTURES = ("image/png", "image/jpeg", "image/webp")
FILE = {"type": "string", "format": "binary"}
TEXT = {"type": "string"}
STREAM = {"text/event-stream": {"schema": {"type": "object", "properties": {"event": TEXT, "data": TEXT, "id": TEXT}}}}
"""Server-sent events, as tools see each of them."""
SUMMARIES = {
    400: "What was asked for is not offered; the message says what is.",
    401: "No key, or one that is not known.",
    402: "The account cannot pay for it.",
    403: "The key may not do this.",
    404: "There is no such thing here.",
    406: "The account cannot pay for it.",
    408: "The body took too long to arrive.",
    409: "It was interrupted, or is at an end.",
    413: "The body is too large.",
    415: "The body is of another kind.",
    422: "The version is not served here, or the Idempotency-Key came with another request before.",
    429: "Too many requests; retry-after says when to come back.",
    500: "The server failed; its log names the request.",
    503: "No replica could answer; try again.",
}
ALWAYS = (400, 401, 402, 408, 413, 422, 429, 500, 503)
"""What any route that draws may answer."""


def takes(model: type[BaseModel], example: Mapping[str, Any], title: str = "the least") -> Document:
    """Return the `openapi_extra` of a route that reads this JSON body itself."""
    content = {
        "schema": {"$ref": REF.format(model=model.__name__)},
        "examples": {title: {"value": dict(example)}},
    }
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def drawing(extra: Document) -> Document:
    """Return the `openapi_extra` of a route that draws: what it reads, and that it may be sent again."""
    about = (
        "Send a request again with its key, within a day: the same pictures, charged once in all, also if the first "
        "answer got lost. A body without a seed gets the key's. With another body the key is refused (422)."
    )
    key = {"name": HEADER, "in": "header", "required": False, "description": about, "schema": SCHEMA}
    return {**extra, "parameters": [key]}


def takes_form(schema: Document) -> Document:
    """Return the `openapi_extra` of a route that reads a form."""
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def answers(
    dialect: str, ok: Document, others: Iterable[int] = ALWAYS, status: int = 200, summary: str = "Done."
) -> dict[int | str, Document]:
    """Return the `responses` of a route: `ok` are the contents of a good answer by media type."""
    kind = "application/problem+json" if dialect == "replicate" else "application/json"
    refusal = {"$ref": REF.format(model=f"{dialect.capitalize() if dialect in SHAPES else 'OpenAI'}Error")}
    return {
        status: {"description": summary, "content": ok},
        **{other: {"description": SUMMARIES[other], "content": {kind: {"schema": refusal}}} for other in others},
    }


def as_json(schema: Document | None = None, example: Any = None) -> Document:
    content: Document = {"schema": schema or {"type": "object"}}
    if example is not None:
        content["example"] = example
    return {"application/json": content}


def as_pictures() -> Document:
    return {kind: {"schema": FILE} for kind in PICTURES}


def schema_of_error(dialect: str) -> Document:
    text = TEXT
    maybe: Document = {"type": ["string", "null"]}
    fields: dict[str, Document] = {
        "replicate": {"title": text, "detail": text},
        "segmind": {"error": text},
        "huggingface": {"error": text},
        "a1111": {"detail": text, "error": text, "errors": text},
    }.get(
        dialect,
        {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {"message": text, "type": text, "param": maybe, "code": maybe},
            }
        },
    )
    return {"type": "object", "required": sorted(fields), "properties": fields, "additionalProperties": False}


def describe(
    app: FastAPI, bodies: Sequence[type[BaseModel]], offer: Offer | None, styles: Sequence[str] = ()
) -> Document:
    """Return the OpenAPI document; with an offer, its sizes, samplers and adapters, and the styles, for any text."""
    document = deepcopy(app.openapi())
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    _, found = models_json_schema([(body, "validation") for body in bodies], ref_template=REF)
    schemas.update(deepcopy(found["$defs"]))
    for dialect in (HOUSE, *SHAPES):
        schemas[f"{dialect.capitalize() if dialect in SHAPES else 'OpenAI'}Error"] = schema_of_error(dialect)
    if offer is not None:
        for name, schema in schemas.items():
            narrow(name, schema, offer, styles)
    return document


def narrow(name: str, schema: Document, offer: Offer, styles: Sequence[str]) -> None:
    """Put what there is now into one body's schema."""
    fields = schema.get("properties", {})
    widths, heights = ({getattr(size, side) for size in offer.sizes} for side in ("width", "height"))
    known: dict[str, Sequence[Any]] = {
        "size": ["auto", *map(str, offer.sizes)],
        "sampler": offer.samplers,
        "width": sorted(widths),
        "height": sorted(heights),
        "img_width": sorted(widths),
        "img_height": sorted(heights),
        "model": [offer.model, *(lora_model(offer.model, lora) for lora in offer.loras)],
        "version": [offer.version],
        "style": styles,
        "styles": styles,
        "lora": offer.loras,
    }
    if name == "LoraField":
        known = {"name": offer.loras}
    for field, values in known.items():
        if field in fields:
            allow(fields[field], list(values))


def allow(field: Document, values: list[Any]) -> None:
    """Let a field, which may be null or a list, have these values only; no value leaves it as it is."""
    if not values:
        return
    for branch in field.get("anyOf", [field]):
        if branch.get("type") in ("string", "integer"):
            for rule in ("pattern", "minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength"):
                branch.pop(rule, None)
            branch["enum"] = values
        if branch.get("type") == "array" or "anyOf" in branch:
            allow(branch.get("items", branch), values)


def page(document: Document) -> str:
    """Return the document as a page of HTML."""
    parts = [
        f"<h1>{html.escape(document['info']['title'])}</h1>",
        "<p>Machine readable: <a href='openapi.json'>openapi.json</a></p>",
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts.append(section(path, method, operation, document["components"]["schemas"]))
    return PAGE.format(title=html.escape(document["info"]["title"]), body="\n".join(parts))


def section(path: str, method: str, operation: Document, schemas: Document) -> str:
    told = [f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>"]
    told.append(f"<p>{html.escape(operation.get('description') or operation.get('summary', ''))}</p>")
    for one in operation.get("parameters", ()):
        about = html.escape(one.get("description", ""))
        told.append(f"<p><code>{html.escape(one['name'])}</code> ({one['in']}) {about}</p>")
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        for example in content.get("examples", {}).values():
            told.append(f"<p>{kind}</p><pre>{html.escape(json.dumps(example['value'], indent=1))}</pre>")
        name = content["schema"].get("$ref", "").rpartition("/")[2]
        told.append(table((schemas.get(name) or content["schema"]).get("properties", {})))
    statuses = ((status, html.escape(answer["description"])) for status, answer in operation["responses"].items())
    told.append("<ul>" + "".join(f"<li><b>{status}</b> {text}</li>" for status, text in statuses) + "</ul>")
    return "<section>" + "".join(told) + "</section>"


def table(fields: Document) -> str:
    rows = []
    for name, field in fields.items():
        rules = {key: value for key, value in field.items() if key not in ("description", "title", "examples")}
        rule, about = html.escape(json.dumps(rules)), html.escape(field.get("description", ""))
        rows.append(f"<tr><td><code>{html.escape(name)}</code></td><td>{about}</td><td><code>{rule}</code></td></tr>")
    return f"<details><summary>{len(rows)} fields</summary><table>{''.join(rows)}</table></details>" if rows else ""


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
section {{ border-top: 1px solid color-mix(in srgb, currentColor 20%, transparent); margin-top: 2rem; }}
pre {{ overflow-x: auto; }} td {{ vertical-align: top; padding: .2rem .6rem; overflow-wrap: anywhere; }}
</style></head><body>{body}</body></html>
"""
