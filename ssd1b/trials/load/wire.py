"""The wire of the contestants: the part of OpenAI's Images route that the load test uses, and their command line."""

import argparse
import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field

from ssd1b.sizes import Size


class Wanted(BaseModel):
    """Body of POST /v1/images/generations."""

    prompt: str
    seed: int
    num_inference_steps: int = Field(ge=1, le=100)
    guidance_scale: float = 5.0
    size: str = "128x128"
    lora: str | None = None

    @property
    def pixels(self) -> Size:
        return Size.parse(self.size)


def answer(picture_HW3: NDArray[np.uint8]) -> dict[str, Any]:
    """Return the response with one picture, as a PNG in base64."""
    buffer = io.BytesIO()
    Image.fromarray(picture_HW3).save(buffer, format="png")
    return {"data": [{"b64_json": base64.b64encode(buffer.getvalue()).decode()}]}


def options(describe: str | None, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line that all contestants have."""
    parser = argparse.ArgumentParser(description=describe)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", type=Path, help="folder of an engine bundle, which is a diffusers folder too")
    parser.add_argument("--adapters", type=Path, help="folder of adapters, NAME/adapter_model.safetensors")
    parser.add_argument("--rows", type=int, default=8, help="pictures of a batch at most")
    parser.add_argument("--wait", type=float, default=0.05, help="seconds that an incomplete batch waits")
    return parser.parse_args(arguments)


def listen(app: FastAPI, port: int) -> None:
    """Serve an app on loopback until the process is told to end."""
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)
