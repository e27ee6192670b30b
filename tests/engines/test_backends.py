"""Every backend against eager torch: same noise, with and without adapters, rows apart from each other."""

import threading

import pytest
import torch

from ssd1b.engines.bundle import open_engine
from ssd1b.engines.checks import random_adapter
from ssd1b.engines.graph import call, example_rows
from ssd1b.engines.on_torch import TorchEngine
from ssd1b.models.files import load_unet

TOKENS = 32
TOLERANCE = {"torch": 1e-6, "onnxruntime": 1e-4, "openvino": 1e-4}
"""Float32 throughout; sums are taken in another order."""


@pytest.fixture(scope="module", params=TOLERANCE)
def engine(request, tiny_bundle):
    made = open_engine(tiny_bundle.folder, request.param, precision="f32")
    made.tolerance = TOLERANCE[request.param]
    return made


@pytest.fixture(scope="module")
def unet(tiny_model):
    return load_unet(str(tiny_model))


def merged(model, adapter, scale, rows):
    """The reference: the adapter added to the weights of a UNet of its own."""
    unet = load_unet(str(model))
    with torch.no_grad():
        for path, (a, b) in adapter.layers.items():
            unet.get_submodule(path).weight += scale * (a @ b).T
        return call(unet, *rows[:5])


def test_without_adapters_it_is_the_unet(engine, unet):
    for batch in (1, 3):
        rows = example_rows(unet, TOKENS, batch)
        with torch.no_grad():
            torch.testing.assert_close(engine(*rows), call(unet, *rows[:5]), atol=engine.tolerance, rtol=0)


def test_each_row_has_its_own_adapter_and_scale(engine, unet, tiny_model):
    adapter = random_adapter(engine)
    engine.load_adapter(1, adapter)
    engine.load_adapter(3, random_adapter(engine, rank=4, size=0.1))
    rows = example_rows(unet, TOKENS, 4)
    slot_B, scale_B = torch.tensor([0, 1, 1, 3]), torch.tensor([1.0, 1.0, 0.5, 1.0])
    noise = engine(*rows[:5], slot_B, scale_B)
    plain = engine(*rows)
    assert (noise[0] - plain[0]).abs().max() <= engine.tolerance
    for row in (1, 2, 3):
        assert (noise[row] - plain[row]).abs().max() > 100 * engine.tolerance
    tolerance = 20 * engine.tolerance  # merged weights round differently from a side path
    torch.testing.assert_close(noise[1], merged(tiny_model, adapter, 1.0, rows)[1], atol=tolerance, rtol=1e-3)
    torch.testing.assert_close(noise[2], merged(tiny_model, adapter, 0.5, rows)[2], atol=tolerance, rtol=1e-3)
    engine.load_adapter(1, None)
    engine.load_adapter(3, None)


def test_swapping_under_load_gives_one_adapter_or_the_other(engine, unet):
    rows = example_rows(unet, TOKENS, 1)
    with_slot = (*rows[:5], torch.tensor([2]), rows[6])
    adapters = [random_adapter(engine, rank=1), random_adapter(engine, rank=2)]
    expected = []
    for adapter in adapters:
        engine.load_adapter(2, adapter)
        expected.append(engine(*with_slot))
    stop = threading.Event()
    swaps = []

    def swap():
        while not stop.is_set():
            engine.load_adapter(2, adapters[len(swaps) % 2])
            swaps.append(1)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        seen = [engine(*with_slot) for _ in range(8)]
    finally:
        stop.set()
        thread.join()
    assert len(swaps) > 1
    for noise in seen:
        assert min((noise - each).abs().max().item() for each in expected) < engine.tolerance
    engine.load_adapter(2, None)


def test_the_default_precision_stays_near(tiny_bundle, unet):
    engine = open_engine(tiny_bundle.folder, "openvino")
    for batch in (1, 4):
        rows = example_rows(unet, TOKENS, batch)
        with torch.no_grad():
            wanted = call(unet, *rows[:5])
        error = (engine(*rows) - wanted).square().mean().sqrt() / wanted.std()
        assert error < 0.03, engine.name  # bfloat16 keeps eight bits, 0.4 %, and there are some fifty layers


def test_the_torch_engine_leaves_the_unet_as_it_was(unet):
    engine = TorchEngine(unet)
    names = set(unet.state_dict())
    engine.load_adapter(1, random_adapter(engine))
    rows = example_rows(unet, TOKENS, 2)
    engine(*rows[:5], torch.tensor([1, 1]), rows[6])
    assert set(unet.state_dict()) == names
    assert not any(module._forward_hooks for module in unet.modules())
