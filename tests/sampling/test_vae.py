"""The VAE where fp16 overflows and where pictures are large."""

import io
import itertools
import logging

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ssd1b.corpus import shipped
from ssd1b.models.files import load_vae
from ssd1b.sampling.decode import Decoder, to_pictures
from ssd1b.sampling.vae import Vae, in_tiles, running_dtype

F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32
SCALE = 1e5
"""What the trap multiplies a layer by: fp16 ends at 65,504."""


def trapped_vae():
    """The shipped VAE with a layer each way scaled far beyond fp16; the GroupNorm behind it takes the scale out."""
    vae = load_vae("nano")
    for side in ("encoder.down_blocks", "decoder.up_blocks"):
        convolution = vae.get_submodule(f"{side}.1.resnets.0.conv1")
        with torch.no_grad():
            convolution.weight *= SCALE
            convolution.bias *= SCALE
    return vae


@pytest.fixture(scope="module")
def pixels():
    """Six shipped drawings, 128x128, in [-1, 1]."""
    rows = pq.read_table(shipped.PATH, columns=["image"]).slice(0, 6).to_pylist()
    drawings = [np.asarray(Image.open(io.BytesIO(row["image"])).convert("RGB")) for row in rows]
    return torch.from_numpy(np.stack(drawings)).permute(0, 3, 1, 2) / 127.5 - 1


@pytest.fixture(scope="module")
def latents(pixels):
    return Vae(load_vae("nano")).posterior(pixels)[0]


@pytest.fixture(scope="module")
def large(pixels):
    """The drawings side by side, and one drawing: 256 pixels high, 384 wide."""
    mosaic = torch.cat([torch.cat(list(pixels[i : i + 3]), dim=2) for i in (0, 3)], dim=1)
    return torch.stack([mosaic, torch.nn.functional.interpolate(pixels[:1], size=(256, 384), mode="bicubic")[0]])


@pytest.mark.parametrize(("wanted", "force_upcast"), list(itertools.product((F32, BF16, F16), (False, True))))
def test_the_precision_a_vae_runs_in(wanted, force_upcast):
    assert running_dtype(wanted, force_upcast) == (F32 if (wanted, force_upcast) == (F16, True) else wanted)


@pytest.mark.parametrize(("force_upcast", "runs_in"), [(True, F32), (False, F16)])
def test_the_config_is_asked(force_upcast, runs_in, latents):
    vae = load_vae("nano")
    vae.register_to_config(force_upcast=force_upcast)
    decode = Decoder(vae, F16)
    assert decode.vae.vae.dtype == runs_in
    if force_upcast:  # not rounded to fp16 on the way
        assert torch.equal(decode(latents[:2]), Decoder(load_vae("nano"))(latents[:2]))


def test_float32_is_the_plain_vae_bit_for_bit(pixels, latents):
    plain, vae = load_vae("nano"), Vae(load_vae("nano"))
    with torch.no_grad():
        assert torch.equal(vae.decode(latents[:2]), plain.decode(latents[:2] / plain.config.scaling_factor).sample)
        posterior = plain.encode(pixels[:2]).latent_dist
    mean, std = vae.posterior(pixels[:2])
    assert torch.equal(mean, posterior.mean * plain.config.scaling_factor)
    assert torch.equal(std, posterior.std * plain.config.scaling_factor)


def test_the_trap_is_one(pixels, latents):
    """In float32 the scaled VAE is the shipped one; in plain fp16 what it makes is not finite."""
    vae, trapped = Vae(load_vae("nano")), Vae(trapped_vae())
    torch.testing.assert_close(trapped.decode(latents[:2]), vae.decode(latents[:2]), atol=1e-3, rtol=0)
    torch.testing.assert_close(trapped.posterior(pixels[:2])[0], vae.posterior(pixels[:2])[0], atol=1e-3, rtol=0)
    half = trapped_vae().half()
    assert all(weight.isfinite().all() for weight in half.parameters())
    with torch.no_grad():
        assert not half.decode(latents[:1].half()).sample.isfinite().all()
        assert not half.encode(pixels[:1].half()).latent_dist.mean.isfinite().all()


def test_what_overflows_is_made_again_in_float32_with_one_warning(pixels, latents, caplog):
    decode, vae = Decoder(trapped_vae(), F16), Vae(trapped_vae(), F16)
    wanted = Decoder(load_vae("nano"))(latents[:2]).int()
    mean, std = Vae(load_vae("nano")).posterior(pixels[:2])
    with caplog.at_level(logging.WARNING):
        made = [decode(latents[:2]).int() for _ in range(2)]
        assert caplog.text.count("overflows in torch.float16") == 1
        made_mean, made_std = vae.posterior(pixels[:2])
    for picture in made:  # the weights were rounded to fp16
        assert (picture - wanted).abs().max() <= 4
        assert (picture - wanted).abs().float().mean() < 0.2
    torch.testing.assert_close(made_mean, mean, atol=2e-2, rtol=0)
    torch.testing.assert_close(made_std, std, atol=2e-2, rtol=2e-2)


def test_fp16_that_does_not_overflow_is_left_alone(latents, caplog):
    with caplog.at_level(logging.WARNING), torch.no_grad():
        made = Vae(load_vae("nano"), F16).decode(latents[:2])
        plain = load_vae("nano").half()
        assert torch.equal(made, plain.decode(latents[:2].half() / plain.config.scaling_factor).sample.float())
    assert not caplog.text


def test_a_row_that_overflows_does_not_change_its_neighbours(latents, caplog):
    """Latents beyond fp16 themselves, in the second of three rows."""
    rows = latents[:3].clone()
    rows[1] *= 1e6
    vae = Vae(load_vae("nano"), F16)
    made = vae.decode(rows)
    assert made.isfinite().all()
    assert "overflows" in caplog.text
    assert torch.equal(made[[0, 2]], vae.decode(latents[:3])[[0, 2]])


@pytest.mark.parametrize("dtype", [F16, BF16, F32])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_latents_that_are_not_finite_are_refused_by_row(latents, dtype, wrong):
    rows = latents[:3].clone()
    rows[[0, 2], 1, 2, 3] = wrong
    with pytest.raises(ValueError, match=r"latents of rows \[0, 2\] are not finite"):
        Decoder(load_vae("nano"), dtype)(rows)


def test_what_cannot_be_encoded_is_nan_throughout(pixels):
    """Also where only the variance is infinite, which diffusers would clamp to something finite."""
    vae = load_vae("nano")
    with torch.no_grad():
        vae.quant_conv.bias[4:] = torch.inf
    for part in Vae(vae).posterior(pixels[:2]):
        assert part.isnan().all()


@pytest.mark.parametrize(
    ("height", "width", "wanted"),
    [(256, 256, False), (128, 512, False), (256, 264, True), (384, 512, True), (64, 64, False), (64, 1032, True)],
)
def test_what_is_made_in_tiles(height, width, wanted):
    """More than four times the area of the nano VAE's sample size, 128x128."""
    assert in_tiles((1, 3, height, width), 256) is wanted
    assert in_tiles((1, 4, height // 8, width // 8), 32) is wanted


def test_small_pictures_are_not_tiled(pixels):
    """256x256 is four times the area, and still whole: bit-equal."""
    side = torch.cat([torch.cat(list(pixels[i : i + 2]), dim=2) for i in (0, 2)], dim=1)[None]
    plain, vae = load_vae("nano"), Vae(load_vae("nano"))
    with torch.no_grad():
        mean = plain.encode(side).latent_dist.mean
        assert torch.equal(vae.posterior(side)[0], mean)
        assert torch.equal(vae.decode(mean), plain.decode(mean).sample)


def test_large_pictures_in_tiles_are_near_the_whole(large):
    """Measured on a mosaic of drawings and on one drawing: 1.5 and 0.8 levels of 255 apart on average; encoded, 0.036
    and 0.030 of latents with a standard deviation of 0.9. (384x512: 2.7 and 1.7 levels, 0.076 and 0.070.)"""
    whole, tiled = Vae(load_vae("nano"), whole_side=1024), Vae(load_vae("nano"))
    mean, _ = whole.posterior(large)
    made, _ = tiled.posterior(large)
    apart = (made - mean).abs().mean((1, 2, 3))
    assert (apart > 0).all()
    assert (apart < 0.06).all()
    pictures = [to_pictures(vae.decode(mean)).float() for vae in (whole, tiled)]
    levels = (pictures[0] - pictures[1]).abs().mean((1, 2, 3))
    assert (levels > 0).all()
    assert (levels < 2.5).all()


def test_tiles_are_not_larger_than_what_is_made_whole(monkeypatch):
    """What memory is spent on: no tile of more positions than the largest whole picture."""
    seen = []
    vae = Vae(load_vae("nano"))
    forward = vae.vae.decoder.forward
    monkeypatch.setattr(vae.vae.decoder, "forward", lambda z: seen.append(z.shape) or forward(z))
    vae.decode(torch.zeros(1, 4, 48, 64))
    assert len(seen) > 1
    assert max(shape[-1] * shape[-2] for shape in seen) <= 32 * 32


@pytest.mark.parametrize("side", [0, 100, -32])
def test_a_side_that_tiles_cannot_have(side):
    with pytest.raises(ValueError, match=f"whole_side {side}: give a multiple of 32"):
        Vae(load_vae("nano"), whole_side=side)
