"""The clients of the soak test: for every dialect the one that its users have, set to report every error at once.

None of them asks again after an error, though most would in use: what fails once counts as failed.
"""

import base64
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx
import huggingface_hub
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from openai import APIStatusError, OpenAI, OpenAIError
from PIL import ExifTags, Image
from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError

from ssd1b.trials.load.soak_wishes import EDIT, SEGMIND, STRENGTH, Wish
from ssd1b.trials.load.stand import MODEL

NOT_OFFERED = "is not offered"
"""What a clean refusal of an adapter says, in every dialect."""
VERSION = re.compile(r"Model version: (\w+)")
COMMENT = b"UNICODE\0"
PARTIAL = 2

Draw = Callable[[Wish], Image.Image]


class RefusedError(Exception):
    """The endpoint answered, with an error."""

    def __init__(self, status: int | None, message: str) -> None:
        """status is None where the dialect tells of the error in an answer of status 200."""
        super().__init__(f"{status} {message}" if status else message)
        self.status, self.message = status, message

    @property
    def clean(self) -> bool:
        """Whether it says that there is no such adapter."""
        return (self.status is None or 400 <= self.status < 500) and NOT_OFFERED in self.message


@dataclass(frozen=True)
class Clients:
    """The clients of one caller, who uses one of them at a time."""

    url: str
    patience_s: float
    model: str = MODEL

    def draw(self, wish: Wish) -> Image.Image:
        """Return the picture, with what the file tells of it.

        Raises:
            RefusedError: there is none.
        """
        by: dict[str, Draw] = {
            "openai": self.openai, "openai stream": self.openai_stream, EDIT: self.openai_edit,
            "huggingface": self.huggingface, "replicate": self.replicate, "a1111": self.a1111, SEGMIND: self.segmind,
        }  # fmt: skip
        if wish.dialect not in by:
            raise ValueError(f"no dialect {wish.dialect!r}: choose from {', '.join(by)}")
        try:
            picture = by[wish.dialect](wish)
            picture.load()
            return picture
        except APIStatusError as error:
            raise RefusedError(error.status_code, str(error)) from error
        except HfHubHTTPError as error:
            raise RefusedError(error.response.status_code if error.response is not None else 0, str(error)) from error
        except ReplicateError as error:
            raise RefusedError(error.status or 0, str(error)) from error
        except ModelError as error:
            raise RefusedError(None, f"prediction failed: {error.prediction.error}") from error
        except (httpx.HTTPError, OpenAIError) as error:
            raise RefusedError(0, f"{type(error).__name__}: {error}") from error

    # ---- one for each dialect

    def openai(self, wish: Wish) -> Image.Image:
        made = self._openai.images.generate(prompt=wish.ask.prompt, extra_body=openai_fields(wish))
        assert made.data, "the answer has no picture"
        return from_base64(made.data[0].b64_json)

    def openai_stream(self, wish: Wish) -> Image.Image:
        events = self._openai.images.generate(
            prompt=wish.ask.prompt, stream=True, partial_images=PARTIAL, extra_body=openai_fields(wish)
        )
        *_, last = events
        if last.type != "image_generation.completed":
            raise RefusedError(None, f"the stream ends with {last.type}")
        return from_base64(last.b64_json)

    def openai_edit(self, wish: Wish) -> Image.Image:
        assert wish.start is not None, "an edit starts from a picture"
        made = self._openai.images.edit(
            image=("start.png", wish.start, "image/png"), prompt=wish.ask.prompt,
            extra_body=openai_fields(wish) | {"strength": STRENGTH},
        )  # fmt: skip
        assert made.data, "the answer has no picture"
        return from_base64(made.data[0].b64_json)

    def huggingface(self, wish: Wish) -> Image.Image:
        made: Image.Image = self._huggingface.text_to_image(
            wish.ask.prompt, negative_prompt=wish.negative, num_inference_steps=wish.ask.steps,
            guidance_scale=wish.ask.guidance, scheduler=wish.sampler, seed=wish.ask.seed,
            extra_body={} if wish.ask.adapter is None else {"lora": worn(wish)},
        )  # fmt: skip
        return made

    def replicate(self, wish: Wish) -> Image.Image:
        asked = {
            "prompt": wish.ask.prompt, "negative_prompt": wish.negative, "num_inference_steps": wish.ask.steps,
            "guidance_scale": wish.ask.guidance, "scheduler": wish.sampler, "seed": wish.ask.seed,
            "lora": None if wish.ask.adapter is None else worn(wish),
        }  # fmt: skip
        files: Any = self._replicate.run(f"ssd1b/{self.model}", input=asked)
        return Image.open(io.BytesIO(files[0].read()))

    def a1111(self, wish: Wish) -> Image.Image:
        plain = wish.sampler.removesuffix("_karras")
        tag = "" if wish.ask.adapter is None else f" <lora:{wish.ask.adapter}:{wish.weight:g}>"
        answer = self._post("/sdapi/v1/txt2img", {
            "prompt": wish.ask.prompt + tag, "negative_prompt": wish.negative, "steps": wish.ask.steps,
            "cfg_scale": wish.ask.guidance, "seed": wish.ask.seed, "sampler_name": plain,
            "scheduler": "Uniform" if plain == wish.sampler else "Karras",
        })  # fmt: skip
        return from_base64(answer.json()["images"][0])

    def segmind(self, wish: Wish) -> Image.Image:
        answer = self._post("/v1/ssd-1b", {
            "prompt": wish.ask.prompt, "negative_prompt": wish.negative, "num_inference_steps": wish.ask.steps,
            "guidance_scale": wish.ask.guidance, "seed": wish.ask.seed, "scheduler": wish.sampler,
        })  # fmt: skip
        return Image.open(io.BytesIO(answer.content))

    # ---- what they share

    @cached_property
    def _openai(self) -> OpenAI:
        return OpenAI(api_key="none", base_url=f"{self.url}/v1", max_retries=0, timeout=self.patience_s)

    @cached_property
    def _huggingface(self) -> InferenceClient:
        return InferenceClient(model=self.url, provider="hf-inference", timeout=self.patience_s)

    @cached_property
    def _replicate(self) -> Client:
        return Client(api_token="none", base_url=self.url, timeout=httpx.Timeout(self.patience_s))

    @cached_property
    def _http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=self.patience_s)

    def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        answer = self._http.post(path, json=body)
        if answer.status_code != 200:
            raise RefusedError(answer.status_code, answer.text[:500])
        return answer


def openai_fields(wish: Wish) -> dict[str, Any]:
    """Return what OpenAI's routes take beyond OpenAI's own fields."""
    told: dict[str, Any] = {
        "num_inference_steps": wish.ask.steps, "guidance_scale": wish.ask.guidance, "sampler": wish.sampler,
        "seed": wish.ask.seed, "negative_prompt": wish.negative,
    }  # fmt: skip
    return told if wish.ask.adapter is None else told | {"lora": worn(wish)}


def worn(wish: Wish) -> dict[str, Any]:
    return {"name": wish.ask.adapter, "scale": wish.weight}


def from_base64(text: str | None) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text or "")))


def version_in(picture: Image.Image) -> str:
    """Return the version that a picture says it was drawn by: in a PNG's text, or in a JPEG's comment.

    Raises:
        ValueError: it says none.
    """
    text = picture.info.get("parameters") or ""
    if not text:
        comment = picture.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment, b"")
        text = comment.removeprefix(COMMENT).decode("utf-16-be", "replace")
    found = VERSION.search(text)
    if found is None:
        raise ValueError(f"the picture says no version in {text!r}")
    return found[1]


@contextmanager
def local_only() -> Iterator[None]:
    """Within it huggingface_hub speaks to this machine though the environment says that there is no hub."""
    kept = huggingface_hub.constants.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = False
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = kept
