"""The document and the app say the same: schemathesis, with its usual checks, finds nothing."""

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from serve_toy import HERE
from toy_front import ToyEngine, listening
from toy_painter import OFFER, SQUARE, ToyAdapters, ToyPainter

from serve.front.documents import describe
from serve.ingress import BODIES, routes
from ssd1b.sampling.tables import SAMPLERS

DRAWS = {
    "/", "/models/{model}", "/v1/images/generations", "/v1/images/edits", "/v1/ssd-1b", "/sdapi/v1/txt2img",
    "/sdapi/v1/img2img", "/v1/predictions", "/v1/models/{owner}/{name}/predictions",
}  # fmt: skip


def test_the_document_tells_of_every_body_and_what_the_model_offers() -> None:
    app = routes(ToyEngine(), "toy")
    with TestClient(app) as http:
        document = http.get("/openapi.json").json()
        page = http.get("/docs").text
    assert "<script" not in page
    assert page.count("<code>Idempotency-Key</code> (header)") == len(DRAWS)
    schemas = document["components"]["schemas"]
    assert {body.__name__ for body in BODIES} <= set(schemas)
    size = schemas["ImageRequest"]["properties"]["size"]
    assert size["anyOf"][0]["enum"] == ["auto", "128x128", "192x64"]
    assert schemas["LoraField"]["properties"]["name"]["enum"] == ["chalk", "clay", "ink", "unfit"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], f"{method} {path}"
            headers = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "header"]
            assert headers == (["Idempotency-Key"] if method == "post" and path in DRAWS else [])
            if "application/json" in operation.get("requestBody", {}).get("content", {}):
                assert operation["requestBody"]["content"]["application/json"]["examples"], f"{method} {path}"
    unknown = describe(app, BODIES, None)["components"]["schemas"]["ImageRequest"]["properties"]["size"]
    assert "enum" not in json.dumps(unknown)


class Fitting(ToyAdapters):
    """The toy adapters that fit: that one does not is nothing a schema could say."""

    def names(self) -> tuple[str, ...]:
        return tuple(name for name in super().names() if name != "unfit")


def test_schemathesis_finds_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """All its phases and usual checks, from its own command; pictures are made for it (schemathesis_pictures.py)."""
    caplog.set_level(logging.ERROR, "ray.serve")
    wide = replace(OFFER, sizes=(SQUARE,), samplers=tuple(SAMPLERS), prompt_tokens=10**6)
    monkeypatch.setattr(ToyPainter, "offer", wide)
    monkeypatch.setenv("SCHEMATHESIS_HOOKS", "schemathesis_pictures")
    monkeypatch.setenv("PYTHONPATH", HERE)
    command = Path(sys.executable).with_name("schemathesis")
    with listening(routes(ToyEngine(adapters=Fitting()), "toy")) as url:
        options = ["--max-examples=5", "--seed=1", "--generation-database=none", "--no-color"]
        found = subprocess.run(
            [command, "run", f"{url}/openapi.json", *options], capture_output=True, text=True, timeout=170, check=False
        )
    assert found.returncode == 0, found.stdout[-10_000:] + found.stderr[-2000:]
    assert "Tested: 39" in found.stdout, "operations came or went: say so here"
