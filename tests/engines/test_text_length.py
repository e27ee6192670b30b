"""The exported graph takes texts of any length, whatever length it was traced at."""

import pytest
import torch

from ssd1b.engines.bundle import Bundle, open_engine
from ssd1b.engines.checks import random_adapter
from ssd1b.engines.graph import call, example_rows
from ssd1b.models.files import load_unet
from ssd1b.sampling.denoise import Request, generate

BACKENDS = ("torch", "onnxruntime", "openvino")


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_takes_texts_of_unlike_length(tiny_bundle, tiny_model, backend):
    engine = open_engine(tiny_bundle.folder, backend, precision="f32")
    reference = open_engine(tiny_bundle.folder, "torch")
    for one in (engine, reference):
        one.load_adapter(1, random_adapter(one))
    unet = load_unet(str(tiny_model))
    for tokens in (64, 32, 128):
        rows = example_rows(unet, tokens, 2)
        with torch.no_grad():
            torch.testing.assert_close(engine(*rows), call(unet, *rows[:5]), atol=1e-4, rtol=0)
        slotted = (*rows[:5], torch.tensor([1, 0]), rows[6])
        torch.testing.assert_close(engine(*slotted), reference(*slotted), atol=1e-4, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_a_long_prompt_gives_torchs_picture(tiny_bundle, backend):
    requests = [Request(prompt=prompt, seed=1, steps=2) for prompt in ("a red apple " * 20, "a red apple")]
    torch_bundle, bundle = Bundle.load(tiny_bundle.folder, "torch"), Bundle.load(tiny_bundle.folder, backend)
    assert bundle.prompt_tokens == torch_bundle.prompt_tokens == 120
    wanted = generate(torch_bundle.engine(), torch_bundle.prompts, torch_bundle.decode, requests)
    made = generate(bundle.engine("f32"), bundle.prompts, bundle.decode, requests)
    assert (made.int() - wanted.int()).abs().max() <= 1  # a level of 255: one rounding
    assert not torch.equal(wanted[0], wanted[1])
