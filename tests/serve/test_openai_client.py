"""OpenAI's own client over real HTTP: pictures, streams with partial images, edits, its errors and headers."""

import base64
import io
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai.types import ImageEditCompletedEvent, ImageGenCompletedEvent, ImageGenPartialImageEvent
from PIL import Image
from ray.exceptions import ActorDiedError
from toy_front import ToyEngine, eventually, listening
from toy_painter import SQUARE

from serve.ingress import routes
from serve.styles import Style
from ssd1b.sizes import Size


@pytest.fixture(scope="module")
def engine() -> ToyEngine:
    return ToyEngine()


@pytest.fixture(scope="module")
def address(engine: ToyEngine) -> Iterator[str]:
    with listening(routes(engine, "toy", styles={"flat": Style("flat", "flat {prompt}")})) as url:
        yield url


@pytest.fixture
def client(address: str) -> openai.OpenAI:
    return openai.OpenAI(api_key="none", base_url=f"{address}/v1", max_retries=0)


def file(size: Size = SQUARE, mode: str = "RGB", clear: bool = False) -> bytes:
    """A flat picture; `clear`: transparent on its right half."""
    image = Image.new(mode, (size.width, size.height), (200, 30, 30, 255)[: len(mode)])
    if clear:
        image.paste((0, 0, 0, 0), (size.width // 2, 0, size.width, size.height))
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return buffer.getvalue()


def test_the_sdk_reads_pictures_models_and_refusals(client: openai.OpenAI) -> None:
    made = client.images.generate(prompt="x", n=2, extra_body={"seed": 7})
    assert made.data is not None
    assert made.usage is not None
    assert len(made.data) == 2
    assert made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens
    with pytest.raises(openai.BadRequestError, match="offered: chalk, clay, ink") as info:
        client.images.generate(prompt="x", extra_body={"lora": "inc"})
    assert (info.value.param, info.value.code) == ("lora", "invalid_value")
    with pytest.raises(openai.NotFoundError):
        client.images.generate(prompt="x", model="dall-e-3")
    assert next(iter(client.models.list())).id == "toy"
    assert client.models.retrieve("toy-lora-ink").id == "toy-lora-ink"
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.models.retrieve("dall-e-3")


@pytest.mark.parametrize("partial", [0, 1, 3])
def test_a_stream_shows_the_picture_in_the_making_and_ends_with_it(client: openai.OpenAI, partial: int) -> None:
    events = list(
        client.images.generate(prompt="x", stream=True, partial_images=partial, extra_body={"seed": 7}),
    )
    *shown, last = events
    assert all(isinstance(event, ImageGenPartialImageEvent) for event in shown)
    assert [event.partial_image_index for event in shown] == list(range(partial))
    assert isinstance(last, ImageGenCompletedEvent)
    assert (last.type, last.size, last.background, last.output_format) == (
        "image_generation.completed",
        "128x128",
        "opaque",
        "png",
    )
    assert last.usage.output_tokens == 256
    for event in events:
        assert Image.open(io.BytesIO(base64.b64decode(event.b64_json))).format == "PNG"
    plain = client.images.generate(prompt="x", extra_body={"seed": 7}).data
    assert plain
    assert plain[0].b64_json == last.b64_json


def test_a_stream_of_several_pictures_completes_each_and_counts_the_prompt_once(client: openai.OpenAI) -> None:
    events = client.images.generate(prompt="a red apple", n=3, stream=True, extra_body={"seed": 7})
    done = [event for event in events if isinstance(event, ImageGenCompletedEvent)]
    assert [event.model_extra["seed"] for event in done if event.model_extra] == [7, 8, 9]
    assert [event.usage.input_tokens for event in done] == [3, 0, 0]
    assert sum(event.usage.output_tokens for event in done) == 3 * 256


def test_what_is_refused_before_the_first_event_has_its_status(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="offered: 128x128"):
        client.images.generate(prompt="x", size="1024x1024", stream=True)


def test_what_fails_later_is_an_event_that_the_sdk_raises(client: openai.OpenAI, engine: ToyEngine) -> None:
    engine.errors, engine.dies_after = [ActorDiedError()] * 99, 1
    try:
        with pytest.raises(openai.APIError, match="died 4 times"):
            list(client.images.generate(prompt="x", stream=True, extra_body={"num_inference_steps": 5}))
    finally:
        engine.errors, engine.dies_after = [], 0


def test_a_replica_that_dies_in_a_stream_is_not_seen_by_the_client(client: openai.OpenAI, engine: ToyEngine) -> None:
    whole = list(client.images.generate(prompt="x", stream=True, partial_images=3, extra_body={"seed": 5}))
    engine.errors, engine.dies_after = [ActorDiedError()], 4
    asked = len(engine.requests)
    mended = list(client.images.generate(prompt="x", stream=True, partial_images=3, extra_body={"seed": 5}))
    engine.dies_after = 0
    assert len(engine.requests) == asked + 2
    assert [event.b64_json for event in mended] == [event.b64_json for event in whole]


def test_an_edit_without_a_mask(client: openai.OpenAI, engine: ToyEngine) -> None:
    made = client.images.edit(image=("in.png", file()), prompt="x", extra_body={"seed": 3, "strength": 0.4})
    assert made.data
    start = engine.requests[-1].start
    assert start is not None
    assert (start.picture, start.strength, start.mask) == (file(), 0.4, None)
    client.images.edit(image=("in.png", file()), prompt="x", input_fidelity="high")
    start = engine.requests[-1].start
    assert start is not None
    assert start.strength == 0.5


def test_a_mask_is_transparent_where_to_edit_and_ours_white(client: openai.OpenAI, engine: ToyEngine) -> None:
    client.images.edit(image=("in.png", file()), mask=("mask.png", file(mode="RGBA", clear=True)), prompt="x")
    start = engine.requests[-1].start
    assert start is not None
    assert start.mask is not None
    mask_HW = np.asarray(Image.open(io.BytesIO(start.mask)))
    assert mask_HW.shape == (128, 128)
    assert (mask_HW[:, :64] == 0).all()
    assert (mask_HW[:, 64:] == 255).all()
    assert start.strength == 1.0


def test_an_edit_has_the_size_nearest_its_shape_and_every_field(client: openai.OpenAI, engine: ToyEngine) -> None:
    lora = {"name": "ink", "scale": 0.5}
    extra: dict[str, Any] = {"lora": lora, "num_inference_steps": 3, "guidance_scale": 2.5, "style": "flat"}
    made = client.images.edit(image=[("in.png", file(Size(100, 290)))], prompt="x", n=2, extra_body=extra)
    assert made.size == "192x64"
    request = engine.requests[-1]
    assert [(one.name, one.scale) for one in request.loras] == [("ink", 0.5)]
    assert (request.steps, request.guidance, request.style, request.n) == (3, 2.5, "flat", 2)
    assert request.prompt == "flat x"
    client.images.edit(image=("in.png", file()), prompt="x", extra_body={"lora": ["ink", "chalk"]})
    assert [one.name for one in engine.requests[-1].loras] == ["ink", "chalk"]


def test_a_streamed_edit(client: openai.OpenAI) -> None:
    events = list(client.images.edit(image=("in.png", file()), prompt="x", stream=True, partial_images=1))
    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]
    assert isinstance(events[-1], ImageEditCompletedEvent)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"image": ("in.png", b"no picture")}, "image is not a PNG, JPEG or WebP file"),
        ({"image": ("in.png", file()[:100])}, "image is"),
        ({"image": [("a.png", file()), ("b.png", file())]}, "2 images and 0 masks were sent"),
        ({"image": ("in.png", file()), "mask": ("m.png", file())}, "mask has no alpha channel"),
        ({"image": ("in.png", file()), "mask": ("m.png", file(Size(64, 64), "RGBA"))}, "mask is 64x64, image 128x128"),
    ],
)
def test_edits_that_are_refused(client: openai.OpenAI, files: dict[str, Any], says: str) -> None:
    with pytest.raises(openai.BadRequestError, match=says):
        client.images.edit(prompt="x", **files)


def test_a_file_that_holds_a_huge_picture_is_refused_unread(client: openai.OpenAI) -> None:
    buffer = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(buffer, format="png")
    assert len(buffer.getvalue()) < 100_000
    with pytest.raises(openai.BadRequestError, match="more than 67108864 pixels"):
        client.images.edit(image=("in.png", buffer.getvalue()), prompt="x")


def test_variations_are_refused_with_the_way_out(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="Use /v1/images/edits with a prompt"):
        client.images.create_variation(image=("in.png", file()))


def test_a_client_that_hangs_up_ends_its_work(address: str, engine: ToyEngine) -> None:
    """Streamed and not: a real socket is closed, and no more steps are made."""
    engine.painter.step_s = 0.01
    body = {"prompt": "x", "num_inference_steps": 100, "n": 2}
    try:
        for stream in (False, True):
            before = engine.steps
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{address}/v1/images/generations", json={**body, "stream": stream}, timeout=0.3)
            eventually(lambda: quiet(engine))
            assert 0 < engine.steps - before < 150
    finally:
        engine.painter.step_s = 0.0


def quiet(engine: ToyEngine) -> bool:
    """Whether no step is made for a tenth of a second."""
    steps = engine.steps
    time.sleep(0.1)
    return engine.steps == steps
