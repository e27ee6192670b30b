"""Denoising rows: the pictures are diffusers', whatever else is in the batch."""

import numpy as np
import pytest
import torch

from ssd1b.engines.on_torch import TorchEngine
from ssd1b.models.files import NANO, load_pipeline, load_unet
from ssd1b.sampling.decode import Decoder
from ssd1b.sampling.denoise import Request, advance, generate, start
from ssd1b.sampling.prompts import Prompts
from ssd1b.sampling.tables import table
from ssd1b.sampling.weights import plain
from ssd1b.sizes import Size

PROMPT = "a red apple, flat vector style"


@pytest.fixture(scope="module")
def prompts():
    return Prompts.load(NANO)


@pytest.fixture(scope="module")
def decode():
    return Decoder.load(NANO)


@pytest.fixture(scope="module")
def nano():
    return TorchEngine(load_unet("nano"))


def toy_engine(latents_BCHW, timestep_B, text_BTD, pooled_BE, time_ids_B6, slot_B, scale_B):
    """Noise that depends on every input of its own row and on no other row."""
    per_row = (
        text_BTD.mean((1, 2)) + pooled_BE.mean(1) + timestep_B / 1000 + time_ids_B6.sum(1) / 1000 + slot_B * scale_B
    )
    return torch.tanh(latents_BCHW + per_row[:, None, None, None])


@pytest.mark.parametrize("negative", [None, "blurry"])
def test_same_picture_as_diffusers(nano, prompts, decode, negative):
    pipeline = load_pipeline("nano")
    wanted = pipeline(
        PROMPT,
        negative_prompt=negative,
        num_inference_steps=4,
        guidance_scale=5.0,
        height=128,
        width=128,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="np",
    ).images[0]
    ours = generate(nano, prompts, decode, [Request(prompt=PROMPT, negative=negative, seed=7, steps=4)])[0]
    difference = np.abs(ours.numpy().astype(int) - (wanted * 255).round().astype(int))
    assert difference.max() <= 1  # a level of 255: one rounding


def test_a_row_does_not_depend_on_its_neighbours(prompts):
    requests = [
        Request(prompt=PROMPT, seed=1, steps=5, sampler="euler_a"),
        Request(prompt="a dog", seed=2, steps=3, sampler="dpmpp_2m", guidance=1.0),
        Request(prompt="a cat", seed=3, steps=7, sampler="ddim", negative="a dog", slot=2, scale=0.5),
        Request(prompt="", seed=4, steps=4, sampler="dpmpp_2m_karras"),
        Request(prompt="a cat", seed=5, steps=1),
    ]
    alone = []
    for request in requests:
        (row,) = start(prompts, [request])
        while not row.done:
            advance(toy_engine, [row])
        alone.append(row.latents_CHW)
    rows = start(prompts, requests)
    advance(toy_engine, [rows[0]])  # so that the rows are at unlike steps
    while running := [row for row in rows if not row.done]:
        advance(toy_engine, running[::-1])
    for row, wanted in zip(rows, alone, strict=True):
        torch.testing.assert_close(row.latents_CHW, wanted, atol=1e-5, rtol=1e-5)


def test_the_engine_sees_one_more_row_for_each_guided_one(prompts):
    seen = []

    def engine(*inputs):
        seen.append(inputs)
        return toy_engine(*inputs)

    advance(engine, start(prompts, [Request(prompt="a cat"), Request(prompt="a dog", guidance=1.0)]))
    latents, _, text, pooled, time_ids, slot, _ = seen[0]
    assert len(latents) == len(text) == len(slot) == 3
    assert not text[2].any()
    assert not pooled[2].any()
    assert torch.equal(latents[2], latents[0])
    assert time_ids[0].tolist() == [128, 128, 0, 0, 128, 128]


def test_the_first_latents_are_diffusers(prompts):
    (row,) = start(prompts, [Request(prompt="a cat", seed=11, size=Size(128, 256))])
    unit = torch.randn(1, 4, 16, 32, generator=torch.Generator("cpu").manual_seed(11))
    torch.testing.assert_close(row.latents_CHW, unit[0] * table("euler", 25).start)


def test_the_last_estimate_is_the_result(prompts):
    (row,) = start(prompts, [Request(prompt="a cat", steps=3)])
    while not row.done:
        advance(toy_engine, [row])
    torch.testing.assert_close(row.denoised_CHW, row.latents_CHW, atol=1e-4, rtol=1e-4)


LONG = (
    "a red apple beside a green pear on a wooden table, in the soft light of a late summer evening, flat vector style"
)


def test_a_long_and_a_short_prompt_together_are_as_each_alone(nano, prompts, decode):
    requests = [
        Request(prompt=LONG, seed=1, steps=2),
        Request(prompt="a dog", seed=2, steps=3),
        Request(prompt="a cat", seed=3, steps=2, negative=LONG),
        Request(prompt="a cat", seed=3, steps=2, negative=LONG, guidance=1.0),
    ]
    rows = start(prompts, requests)
    assert [len(row.text_TD) for row in rows] == [64, 32, 64, 32]
    together = generate(nano, prompts, decode, requests[:2])
    for request, made in zip(requests[:2], together, strict=True):
        assert torch.equal(generate(nano, prompts, decode, [request])[0], made)


def test_rows_of_unlike_text_never_share_a_call(prompts):
    with pytest.raises(AssertionError, match="neighbours"):
        advance(toy_engine, start(prompts, [Request(prompt=LONG), Request(prompt="a cat")]))


def test_rows_of_unlike_text_come_back_in_order(prompts):
    """A decoder that shows each row's seed: pictures are in the order of the requests."""
    requests = [
        Request(prompt=prompt, seed=seed, steps=1, guidance=1.0) for seed, prompt in enumerate([LONG, "a", LONG, "b"])
    ]

    def first_pixel(latents_BCHW):
        return latents_BCHW[:, 0, :1, :1, None]

    made = generate(toy_engine, prompts, first_pixel, requests)
    alone = [generate(toy_engine, prompts, first_pixel, [request])[0] for request in requests]
    torch.testing.assert_close(made, torch.stack(alone))


def test_weights_are_read_only_where_asked_for(prompts):
    captions, weights = (
        start(prompts, [Request(prompt=prompt, weighted=weighted) for prompt in ("a (red:2) cat", "a red cat")])
        for weighted in (False, True)
    )
    assert torch.equal(captions[1].text_TD, weights[1].text_TD)
    same = (weights[0].text_TD == weights[1].text_TD).all(1)
    assert same.nonzero().flatten().tolist() == [i for i in range(32) if i != 2]  # the marker, "a", then "red"
    (text,) = prompts.read([plain("a (red:2) cat")])
    assert torch.equal(captions[0].text_TD, text.text_TD)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"sampler": "heun"}, {"guidance": float("nan")}, {"scale": float("inf")}]
)
def test_a_request_that_cannot_be(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        Request(prompt="a cat", **wrong)


def test_no_rows_need_no_towers(prompts):
    assert start(prompts, []) == []
