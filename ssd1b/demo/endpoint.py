"""The served pictures, asked for over HTTP as any client would."""

import base64
import io
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from PIL import Image

TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Served:
    """One picture and how long its request took."""

    picture: Image.Image
    latency_s: float


def ask(endpoint: str, body: dict[str, Any]) -> Served:
    """POST to the OpenAI Images route and return the picture.

    Raises:
        ValueError: the endpoint refused; the message is its own.
    """
    request = urllib.request.Request(
        f"{endpoint}/v1/images/generations",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    started = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        raise ValueError(f"{endpoint} answered {error.code}: {error.read().decode()[:500]}") from error
    latency_s = time.monotonic() - started
    picture = Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"])))
    return Served(picture.convert("RGB"), latency_s)
