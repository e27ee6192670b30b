"""OpenAI's Images dialect: what is read, what is refused and in which words, what is answered."""

import base64
import json
import pickle
from typing import Any

import pytest

from serve.answer import Generation, Picture
from serve.dialects.openai import QUALITY_STEPS, read, to_models, to_request, to_response
from serve.errors import RequestError
from serve.offer import Offer
from serve.request import LoraChoice
from ssd1b.sizes import Size

OFFER = Offer(
    model="toy", version="1", created=1, sizes=(Size(128, 128),), samplers=("euler",), prompt_tokens=5, loras=("ink",)
)


def refused(**fields: Any) -> RequestError:
    with pytest.raises(RequestError) as info:
        to_request(read(json.dumps(fields).encode()), "toy")
    return info.value


def test_the_least_request() -> None:
    request = to_request(read(b'{"prompt": "a red apple"}'), "toy")
    assert (request.prompt, request.n, request.size, request.loras) == ("a red apple", 1, None, ())
    assert request.steps == QUALITY_STEPS["medium"]


def test_every_field() -> None:
    fields = {
        "prompt": "a red apple",
        "model": "toy",
        "n": 3,
        "size": "64x192",
        "quality": "high",
        "response_format": "b64_json",
        "output_format": "webp",
        "output_compression": 60,
        "background": "opaque",
        "moderation": "low",
        "stream": True,
        "partial_images": 2,
        "user": "someone",
        "negative_prompt": "grey",
        "num_inference_steps": 7,
        "guidance_scale": 4,
        "seed": 5,
        "sampler": "ddim",
        "lora": ["chalk", {"name": "ink", "scale": 0.5}],
        "guidance_rescale": 0.7,
        "style": "origami",
        "priority": "batch",
    }
    image = read(json.dumps(fields).encode())
    request = to_request(image, "toy", style=image.style)
    assert request.seeds == (5, 6, 7)
    assert (request.size, request.steps, request.guidance, request.sampler) == (Size(192, 64), 7, 4.0, "ddim")
    assert request.loras == (LoraChoice(name="chalk"), LoraChoice(name="ink", scale=0.5))
    assert (request.previews, request.rescale, request.style, request.priority) == (2, 0.7, "origami", "batch")
    assert (request.output_format, request.output_compression, request.negative_prompt) == ("webp", 60, "grey")


def test_openais_own_styles_are_no_preset() -> None:
    for style in ("vivid", "natural"):
        assert to_request(read(b'{"prompt": "x"}'), "toy", style=style).style is None


def test_null_means_not_given_and_a_seed_is_drawn_once() -> None:
    image = read(b'{"prompt": "x", "n": null, "size": null, "seed": null, "lora": null}')
    first, second = to_request(image, "toy"), to_request(image, "toy")
    assert first.n == 1
    assert first.seed != second.seed


def test_the_quality_is_steps_unless_steps_are_given() -> None:
    assert to_request(read(b'{"prompt": "x", "quality": "hd"}'), "toy").steps == QUALITY_STEPS["high"]
    assert to_request(read(b'{"prompt": "x", "quality": "hd", "num_inference_steps": 3}'), "toy").steps == 3


def test_a_model_of_the_list_with_an_adapter() -> None:
    assert to_request(read(b'{"prompt": "x", "model": "toy-lora-ink"}'), "toy").loras == (LoraChoice(name="ink"),)
    both = to_request(read(b'{"prompt": "x", "model": "toy-lora-ink", "lora": "chalk"}'), "toy")
    assert both.loras == (LoraChoice(name="ink"), LoraChoice(name="chalk"))
    scaled = b'{"prompt": "x", "model": "toy-lora-ink", "lora": {"name": "ink", "scale": 0.5}}'
    assert to_request(read(scaled), "toy").loras == (LoraChoice(name="ink", scale=0.5),)


def test_an_adapter_named_twice_acts_with_both_scales() -> None:
    body = b'{"prompt": "x", "lora": ["ink", "chalk", {"name": "ink", "scale": 0.5}]}'
    assert to_request(read(body), "toy").loras == (LoraChoice(name="ink", scale=1.5), LoraChoice(name="chalk"))


def test_a_whole_number_may_have_a_point_and_partial_images_without_a_stream_are_none() -> None:
    request = to_request(read(b'{"prompt": "x", "n": 2.0, "partial_images": 2}'), "toy")
    assert (request.n, request.previews) == (2, 0)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "one JSON object"),
        (b'"a red apple"', "one JSON object"),
    ],
)
def test_a_body_that_is_no_request(body: bytes, says: str) -> None:
    with pytest.raises(RequestError, match=says) as info:
        read(body)
    assert (info.value.status, info.value.code) == (400, "invalid_json")


@pytest.mark.parametrize(
    ("fields", "param", "code", "says"),
    [
        ({}, "prompt", "missing_required_parameter", "Missing required parameter: 'prompt'"),
        ({"prompt": None}, "prompt", "missing_required_parameter", "prompt"),
        ({"prompt": ""}, "prompt", "invalid_value", "at least 1"),
        ({"prompt": "  "}, "prompt", "invalid_value", "say what to draw"),
        ({"prompt": 7}, "prompt", "invalid_value", "string"),
        ({"prompt": "\ud800"}, "prompt", "invalid_value", "valid string"),
        ({"prompt": "x" * 32_001}, "prompt", "invalid_value", "32000"),
        ({"prompt": "x", "n": 0}, "n", "invalid_value", "greater than or equal to 1"),
        ({"prompt": "x", "n": 11}, "n", "invalid_value", "less than or equal to 10"),
        ({"prompt": "x", "n": "2"}, "n", "invalid_value", "integer"),
        ({"prompt": "x", "n": True}, "n", "invalid_value", "integer"),
        ({"prompt": "x", "size": "big"}, "size", "invalid_value", "WIDTHxHEIGHT"),
        ({"prompt": "x", "seed": -1}, "seed", "invalid_value", "greater"),
        ({"prompt": "x", "seed": 2**53}, "seed", "invalid_value", "less"),
        ({"prompt": "x", "guidance_scale": float("nan")}, "guidance_scale", "invalid_value", "finite"),
        ({"prompt": "x", "num_inference_steps": 0}, "num_inference_steps", "invalid_value", "greater"),
        ({"prompt": "x", "quality": "superb"}, "quality", "invalid_value", "'low', 'medium', 'high'"),
        ({"prompt": "x", "output_format": "gif"}, "output_format", "invalid_value", "'png', 'jpeg' or 'webp'"),
        ({"prompt": "x", "response_format": "url"}, "response_format", "unsupported_value", "b64_json"),
        ({"prompt": "x", "background": "transparent"}, "background", "unsupported_value", "opaque"),
        ({"prompt": "x", "style": 3}, "style", "invalid_value", "string"),
        ({"prompt": "x", "stream": "yes"}, "stream", "invalid_value", "boolean"),
        ({"prompt": "x", "stream": True, "partial_images": 4}, "partial_images", "invalid_value", "less than or equal"),
        ({"prompt": "x", "lora": [f"lora-{i}" for i in range(9)]}, "lora", "invalid_value", "a list of at most 8"),
        ({"prompt": "x", "priority": "now"}, "priority", "invalid_value", "'interactive' or 'batch'"),
        ({"prompt": "x", "guidance_rescale": 2}, "guidance_rescale", "invalid_value", "less than or equal to 1"),
        ({"prompt": "x", "lora": 3}, "lora", "invalid_value", "lora must be"),
        ({"prompt": "x", "lora": {"name": "ink", "scale": 9}}, "lora", "invalid_value", "-4 to 4"),
        ({"prompt": "x", "lora": {"scale": 1}}, "lora", "invalid_value", "lora must be"),
        (
            {"prompt": "x", "negativ_prompt": "y"},
            "negativ_prompt",
            "unknown_parameter",
            "did you mean 'negative_prompt'?",
        ),
    ],
)
def test_refusals_name_the_field_and_say_what_is_allowed(
    fields: dict[str, Any], param: str, code: str, says: str
) -> None:
    error = refused(**fields)
    assert (error.param, error.code, error.status) == (param, code, 400)
    assert says in error.message
    assert error.body()["error"] == {
        "message": error.message,
        "type": "invalid_request_error",
        "param": param,
        "code": code,
    }


def test_another_model_does_not_exist() -> None:
    error = refused(prompt="x", model="dall-e-3")
    assert (error.status, error.code) == (404, "model_not_found")
    assert "serves 'toy'" in error.message


def test_the_offer_refuses_what_the_model_cannot_do() -> None:
    request = to_request(read(b'{"prompt": "x", "size": "256x256"}'), "toy")
    with pytest.raises(RequestError, match="'256x256' is not offered; offered: 128x128"):
        OFFER.admit(request, 1, 0)
    with pytest.raises(RequestError, match="prompt has 6 tokens; toy reads at most 5"):
        OFFER.admit(request, 6, 0)
    with pytest.raises(RequestError, match="negative_prompt has 9 tokens"):
        OFFER.admit(request, 5, 9)
    request = to_request(read(b'{"prompt": "x", "sampler": "eular"}'), "toy")
    with pytest.raises(RequestError, match="sampler 'eular' is not offered; offered: euler"):
        OFFER.admit(request, 5, 0)
    assert OFFER.admit(to_request(read(b'{"prompt": "x"}'), "toy"), 5, 0) == Size(128, 128)


def test_a_refusal_travels_between_processes() -> None:
    error = refused(prompt="x", model="dall-e-3")
    twin = pickle.loads(pickle.dumps(error))
    assert (twin.body(), twin.status, str(twin)) == (error.body(), error.status, str(error))


def test_the_response_has_every_member_openai_requires() -> None:
    image = read(b'{"prompt": "x", "quality": "auto"}')
    made = Generation(
        pictures=(Picture(data=b"one", seed=1), Picture(data=b"two", seed=2)),
        size=Size(64, 192),
        prompt_tokens=3,
        latent_tokens=384,
    )
    response = to_response(image, made, 1234)
    assert [base64.b64decode(one["b64_json"]) for one in response["data"]] == [b"one", b"two"]
    assert [one["seed"] for one in response["data"]] == [1, 2]
    assert (response["created"], response["size"], response["quality"]) == (1234, "192x64", "medium")
    assert response["usage"] == {
        "input_tokens": 3,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": 3},
        "output_tokens": 384,
        "output_tokens_details": {"image_tokens": 384, "text_tokens": 0},
        "total_tokens": 387,
    }


def test_the_model_list_holds_the_model_and_its_adapters() -> None:
    models = to_models(OFFER)
    assert [(one["id"], one["parent"]) for one in models] == [("toy", None), ("toy-lora-ink", "toy")]
