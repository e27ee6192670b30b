"""Denoising rows: the pictures are diffusers', whatever else is in the batch."""

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import rescale_noise_cfg
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd1b.engines.on_torch import TorchEngine
from ssd1b.models.files import NANO, load_pipeline, load_unet
from ssd1b.sampling.decode import Decoder
from ssd1b.sampling.denoise import Known, Request, advance, generate, start
from ssd1b.sampling.prompts import Prompts
from ssd1b.sampling.schedule import Schedule
from ssd1b.sampling.tables import SAMPLERS, table
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


MIXED = [
    Request(prompt=PROMPT, seed=1, steps=5, sampler="euler_a", rescale=0.7),
    Request(prompt="a dog", seed=2, steps=3, sampler="dpmpp_2m", guidance=1.0),
    Request(prompt="a cat", seed=3, steps=7, sampler="ddim", negative="a dog", slot=2, scale=0.5),
    Request(prompt="", seed=4, steps=4, sampler="dpmpp_2m_sde_karras"),
    Request(prompt="a cat", seed=5, steps=1),
    Request(prompt="a cat", seed=6, steps=4, sampler="heun"),
    Request(prompt="a cat", seed=7, steps=6, sampler="unipc", strength=0.7),
    Request(prompt="a cat", seed=8, steps=4, sampler="dpmpp_sde", strength=0.5, rescale=0.2),
    Request(prompt="a cat", seed=9, steps=4, sampler="lcm", guidance=1.0),
]


def row_by_row(*inputs):
    """The toy engine, each row alone: its bits cannot depend on the batch."""
    return torch.cat([toy_engine(*(tensor[n : n + 1] for tensor in inputs)) for n in range(len(inputs[0]))])


def begun(prompts, places, device="cpu"):
    """Rows of MIXED; those of a strength start from a picture, the last of them keeps half of it."""
    mean, std = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(16) < 8).float().expand(1, 16, 16)
    pictures = {6: Known(mean_CHW=mean), 7: Known(mean_CHW=mean, std_CHW=std.abs(), mask_1HW=mask)}
    return start(prompts, [MIXED[n] for n in places], [pictures.get(n) for n in places], device=device)


@pytest.fixture(scope="module")
def alone(prompts):
    """What each row of MIXED comes to by itself."""
    rows = begun(prompts, range(len(MIXED)))
    for row in rows:
        while not row.done:
            advance(row_by_row, [row])
    return [row.latents_CHW for row in rows]


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_a_row_does_not_depend_on_its_neighbours(prompts, alone, data):
    """Bit for bit: any rows, in any order, joining and missing steps as it happens."""
    places = data.draw(st.permutations(range(len(MIXED))))
    rows = dict(zip(places, begun(prompts, places), strict=True))
    while running := [n for n, row in rows.items() if not row.done]:
        chosen = data.draw(st.lists(st.sampled_from(running), min_size=1, unique=True))
        advance(row_by_row, [rows[n] for n in chosen])
    for n, row in rows.items():
        assert torch.equal(row.latents_CHW, alone[n]), MIXED[n]


def test_with_a_real_engine_a_row_depends_on_its_neighbours_by_rounding_only(nano, prompts):
    requests = [
        Request(prompt=PROMPT, seed=1, steps=3, sampler="euler_a"),
        Request(prompt="a dog", seed=2, steps=2, sampler="unipc", guidance=1.0),
        Request(prompt="a cat", seed=3, steps=2, sampler="heun", rescale=0.5),
    ]
    together, alone = start(prompts, requests), start(prompts, requests)
    while running := [row for row in together if not row.done]:
        advance(nano, running)
    for row, single in zip(together, alone, strict=True):
        while not single.done:
            advance(nano, [single])
        torch.testing.assert_close(row.latents_CHW, single.latents_CHW, atol=1e-3, rtol=0)


def test_everything_is_made_where_the_rows_are(prompts):
    """On the device "meta", which holds shapes only and refuses to compute with tensors of another device."""
    rows = begun(prompts, range(len(MIXED)), "meta")
    seen = []

    def engine(*inputs):
        seen.extend(tensor.device.type for tensor in inputs)
        return torch.empty_like(inputs[0])

    while running := [row for row in rows if not row.done]:
        advance(engine, running)
    assert set(seen) == {"meta"}
    assert {tensor.device.type for row in rows for tensor in row.memory} == {"meta"}


def test_rescale_is_diffusers(prompts):
    """Only for the rows that ask for it, each in its share."""
    requests = [Request(prompt="a cat", seed=n, rescale=share) for n, share in enumerate((0.0, 0.7, 1.0))]
    requests.append(Request(prompt="a cat", seed=4, guidance=1.0, rescale=1.0))
    seen = []

    def engine(*inputs):
        seen.append(torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1)))
        return seen[-1]

    rows = start(prompts, requests)
    before = [row.latents_CHW for row in rows]
    advance(engine, rows)
    conditional, unconditional = seen[0][:4], seen[0][4:]
    for n, row in enumerate(rows):
        wanted = conditional[n]
        if n < 3:
            moved = unconditional[n] + 5.0 * (conditional[n] - unconditional[n])
            wanted = rescale_noise_cfg(moved[None], conditional[n][None], requests[n].rescale)[0]
        made = (before[n] - row.denoised_CHW) / row.table.level_X2[0, 1]
        torch.testing.assert_close(made, wanted, atol=1e-5, rtol=1e-5)


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
    "wrong",
    [
        {"steps": 0}, {"sampler": "plms"}, {"guidance": float("nan")}, {"scale": float("inf")}, {"rescale": 1.5},
        {"strength": 0.0}, {"strength": 1.1}, {"strength": 0.01},
    ],
)  # fmt: skip
def test_a_request_that_cannot_be(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        Request(prompt="a cat", **wrong)


def test_a_picture_to_start_from_that_cannot_be(prompts):
    half, mean = Request(prompt="a cat", strength=0.5), torch.zeros(4, 16, 16)
    for known, told in [
        (None, "strength 0.5 needs a picture"),
        (Known(mean_CHW=torch.zeros(4, 16, 8)), r"latents are \(4, 16, 8\), 128x128 needs \(4, 16, 16\)"),
        (Known(mean_CHW=mean, mask_1HW=torch.zeros(16, 16)), r"the mask is \(16, 16\): give it as \(1, 16, 16\)"),
    ]:
        with pytest.raises(ValueError, match=told):
            start(prompts, [half], [known])


def test_rows_of_another_schedule(prompts):
    schedule = Schedule(prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True)
    rows = start(prompts, [Request(prompt="a cat", steps=4, sampler=name) for name in SAMPLERS], schedule=schedule)
    while running := [row for row in rows if not row.done]:
        advance(toy_engine, running)
    assert all(row.latents_CHW.isfinite().all() for row in rows)
    assert all(row.table.call_S2[0, 0] == 999 for row in rows)


def test_no_rows_need_no_towers(prompts):
    assert start(prompts, []) == []
