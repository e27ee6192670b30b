"""A1111's text of how a picture was made: the layout, and that what goes in comes out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.dialects.samplers import a1111
from serve.offer import Offer
from serve.pictures.parameters import NEGATIVE, Parameters, clean, parameters, quoted, unquoted
from serve.request import GenerationRequest, LoraChoice, Start
from ssd1b.sampling.tables import SAMPLERS
from ssd1b.sizes import Size

OFFER = Offer(model="ssd1b-nano", version="7", created=1, sizes=(Size(64, 192),), samplers=("euler",), prompt_tokens=75)
REQUEST = GenerationRequest(
    prompt="a red apple,\n(on a plate:1.2)",
    negative_prompt="blurry, 3d",
    seed=1,
    steps=30,
    guidance=7.5,
    rescale=0.7,
    sampler="dpmpp_2m_karras",
    loras=(LoraChoice(name="ink", scale=0.8), LoraChoice(name="clay")),
    start=Start(picture=b"", strength=0.6),
    style="neon punk",
)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
VALUES = TEXT.filter(bool)
SETTINGS = st.dictionaries(st.sampled_from(["Steps", "Lora hashes", "Model", "VAE/x", "CFG scale"]), VALUES, min_size=3)


def test_the_layout() -> None:
    made = parameters(REQUEST, 5, Size(64, 192), OFFER, {"ink": "0123456789ab"})
    lines = str(made).split("\n")
    assert lines[:3] == [
        "a red apple,",
        "(on a plate:1.2) <lora:ink:0.8> <lora:clay:1>",
        "Negative prompt: blurry, 3d",
    ]
    told, _, ours = lines[3].partition(", Version: ")
    assert told == (
        "Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 5, Size: 192x64, "
        "Model: ssd1b-nano, Model version: 7, Denoising strength: 0.6, Guidance rescale: 0.7, Style: neon punk, "
        'Lora hashes: "ink: 0123456789ab"'
    )
    assert ours.startswith("ssd1b ")
    assert len(lines) == 4
    assert Parameters.parse(str(made)) == made


def test_what_is_not_there_is_not_told() -> None:
    made = parameters(GenerationRequest(prompt="x", seed=1), 1, Size(64, 64), OFFER)
    assert list(made.settings) == [
        "Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model", "Model version", "Version"
    ]  # fmt: skip
    assert NEGATIVE not in str(made)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_that_is_pasted_into_a1111s_dialect_is_the_same(sampler: str) -> None:
    made = parameters(GenerationRequest(prompt="x", seed=1, sampler=sampler), 1, Size(64, 64), OFFER)
    assert a1111(made.settings["Sampler"], made.settings["Schedule type"]) == sampler


@given(prompt=TEXT, negative=TEXT.filter(lambda text: f"\n{NEGATIVE}" not in f"\n{text}"), settings=SETTINGS)
def test_any_text_comes_back(prompt: str, negative: str, settings: dict[str, str]) -> None:
    made = Parameters(prompt, negative, settings)
    assert Parameters.parse(str(made)) == made


def test_a_prompt_that_looks_like_the_form() -> None:
    prompt = "a\nNegative prompt: b\nSteps: 1, Sampler: x, CFG scale: 2, Seed: 3"
    made = parameters(GenerationRequest(prompt=prompt, seed=1), 1, Size(64, 64), OFFER)
    assert Parameters.parse(str(made)) == made


@given(VALUES)
def test_values_are_quoted_where_they_must_be(value: str) -> None:
    assert unquoted(quoted(value)) == value


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    Parameters.parse(text)


@pytest.mark.parametrize(
    ("text", "prompt", "settings"),
    [
        ("just a prompt, with: colons", "just a prompt, with: colons", 0),
        ("", "", 0),
        ("a fox\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model hash: abc", "a fox", 6),
        ('a fox\nSteps: 20, Hashes: {"a": 1}, Seed: 1, Broken: "x', "a fox", 4),
    ],
)
def test_texts_of_others(text: str, prompt: str, settings: int) -> None:
    made = Parameters.parse(text)
    assert (made.prompt, len(made.settings)) == (prompt, settings)


def test_what_no_file_can_hold_is_left_out() -> None:
    assert clean("a\0b\ud800c") == "ab?c"
