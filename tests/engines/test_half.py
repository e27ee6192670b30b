"""Half precision that is sound: float16 in torch rounds after every operation, as a GPU does."""

import copy
import math

import pytest
import torch

from ssd1b.engines.bundle import Bundle
from ssd1b.engines.checks import random_adapter
from ssd1b.engines.graph import VaeDecoder, VaeEncoder, call, example_rows
from ssd1b.engines.half import ROOM, factor, halved, halved_vae, peaks
from ssd1b.engines.manifest import interface
from ssd1b.models.files import load_unet, load_vae

SCALE = 1e5


def trapped_vae():
    """The shipped VAE, two layers of which are scaled far beyond fp16, one of them on the stream of residuals."""
    vae = load_vae("nano")
    with torch.no_grad():
        for side in ("encoder.down_blocks", "decoder.up_blocks"):
            convolution = vae.get_submodule(f"{side}.1.resnets.0.conv1")
            convolution.weight *= SCALE
            convolution.bias *= SCALE
        for half in (vae.encoder, vae.decoder):  # a constant on one channel, which the last norm sees
            half.conv_in.bias[3] += SCALE
    return vae


@pytest.mark.parametrize(("peak", "wanted"), [(1.0, 1), (ROOM, 1), (ROOM + 1, 2), (65_504.0, 32), (1e6, 512)])
def test_factors_are_powers_of_two_with_room(peak, wanted):
    assert factor(peak) == wanted
    assert peak / factor(peak) <= ROOM


@torch.no_grad()
def test_a_vae_that_overflows_is_rescaled_exactly():
    vae = trapped_vae()
    latents, pixels = torch.randn(2, 4, 12, 20), torch.rand(2, 3, 96, 160) * 2 - 1
    decoded, (mean, _) = VaeDecoder(vae)(latents), VaeEncoder(vae)(pixels)
    plainly = copy.deepcopy(vae).half()
    assert not VaeDecoder(plainly)(latents).isfinite().all()
    made = halved_vae(vae)
    with peaks(made) as peak:
        ours, (our_mean, our_std) = VaeDecoder(made)(latents), VaeEncoder(made)(pixels)
    assert max(peak.values()) < 65_504 / 4
    assert ours.isfinite().all()
    assert our_std.isfinite().all()
    assert (ours - decoded).square().mean().sqrt() / decoded.std() < 0.02
    assert (our_mean - mean).square().mean().sqrt() / mean.std() < 0.02
    # in float32 the factors are powers of two and change nothing
    exact = halved_vae(vae).float()
    for module in exact.modules():
        module._forward_hooks.clear()
    torch.testing.assert_close(VaeDecoder(exact)(latents), decoded, atol=5e-2, rtol=0)


@torch.no_grad()
def test_the_nano_family_in_half(tiny_model):
    vae, unet = load_vae("nano"), load_unet(str(tiny_model))
    latents = torch.randn(2, 4, 16, 16)
    wanted = VaeDecoder(vae)(latents)
    assert (VaeDecoder(halved_vae(vae))(latents) - wanted).abs().max() < 0.02  # 2.5 of 255 levels
    rows = example_rows(unet, 32)
    noise = call(unet, *rows[:5])
    made = halved(unet)
    assert {p.dtype for p in made.parameters()} == {torch.float16, torch.float32}  # norms stay
    assert (call(made, *rows[:5]).float() - noise).square().mean().sqrt() / noise.std() < 5e-3
    assert {p.dtype for p in unet.parameters()} == {torch.float32}


def test_the_bundle_in_half_says_how_far_it_is(half_bundle):
    manifest = half_bundle.manifest
    assert manifest["precision"] == "f16"
    for part in ("unet", "decoder", "encoder"):
        for where in ("torch", "onnxruntime"):
            error = manifest["numerics"][part][where]
            assert math.isfinite(error["max"])
            assert 0 < error["rms_share"] < 5e-3


def test_types_do_not_mix(half_bundle):
    """Bank in half, rows in float32 (ids and slots in int64), and so is what comes out."""
    import onnx

    float32, float16, int64 = 1, 10, 7
    graph = onnx.load(half_bundle.folder / "unet.onnx", load_external_data=False).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert list(kinds)[:-1] == list(interface(half_bundle.folder / "unet.onnx")["inputs"])
    for name, kind in kinds.items():
        assert kind == (int64 if name == "slot" else float16 if name[:2] in ("a_", "b_") else float32)
    big = {tensor.data_type for tensor in graph.initializer if math.prod(tensor.dims) > 4096}
    assert big == {float16}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_half_graph_is_near_float32(half_bundle, tiny_bundle, backend):
    engine, reference = Bundle.load(half_bundle.folder, backend).engine("f32"), Bundle.load(tiny_bundle.folder, "torch")
    reference = reference.engine()
    for one in (engine, reference):
        one.load_adapter(1, random_adapter(one))
    rows = example_rows(load_unet(str(tiny_bundle.folder)), 32, 2, (13, 19))
    for slots in ([0, 0], [0, 1]):
        made, wanted = (one(*rows[:5], torch.tensor(slots), rows[6]) for one in (engine, reference))
        assert made.dtype == torch.float32
        assert (made - wanted).square().mean().sqrt() / wanted.std() < 5e-3
