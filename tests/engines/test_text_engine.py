"""Text towers on every backend are diffusers', and text, UNet and VAE may run at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from ssd1b.adapters.adapter import Adapter
from ssd1b.engines.bundle import Bundle
from ssd1b.engines.checks import random_adapter, random_layers
from ssd1b.engines.graph import example_rows
from ssd1b.models.files import NANO, load_pipeline, load_unet
from ssd1b.sampling.weights import parse, plain

BACKENDS = ("torch", "onnxruntime", "openvino")
PROMPTS = ["a red apple", "", "a cat's pyjamas, 3 e\u0301 汉字"]


@pytest.fixture(scope="module", params=BACKENDS)
def bundle(request, tiny_bundle):
    return Bundle.load(tiny_bundle.folder, request.param)


def test_prompts_are_diffusers(bundle):
    pipeline = load_pipeline("nano", unet=None, vae=None)
    wanted, _, wanted_pooled, _ = pipeline.encode_prompt(PROMPTS, do_classifier_free_guidance=False)
    made = bundle.prompts.read([plain(prompt) for prompt in PROMPTS])
    exact = bundle.backend == "torch"
    for ours, theirs in ((0, wanted), (1, wanted_pooled)):
        both = torch.stack([text[ours] for text in made]), theirs
        assert torch.equal(*both) if exact else torch.allclose(*both, atol=2e-5)
    assert (bundle.prompts.limit, bundle.prompts.longest, bundle.prompt_tokens) == (30, 120, 120)
    assert [part.shape for part in bundle.prompts.unconditional(64)] == [(64, 128), (128,)]


def test_a_weighted_prompt_with_an_adapter_starts_from_that_adapters_empty_prompt(bundle):
    text = bundle.text
    style = Adapter("style", {}, tuple(random_layers(layout, 2, 0.1) for layout in text.layouts))
    text.load_adapter(1, style)
    read = bundle.prompts.read
    weighted = read([parse("a (red:0) apple")], [(1, 1.0)])[0].text_TD
    empty, other = bundle.prompts.empty((1, 1.0)).text_TD, bundle.prompts.empty().text_TD
    torch.testing.assert_close(weighted[2], empty[2], atol=1e-5, rtol=0)
    assert (empty[2] - other[2]).abs().max() > 1e-3
    text.load_adapter(1, None)
    assert torch.equal(bundle.prompts.empty((1, 1.0)).text_TD, bundle.prompts.empty((2, 1.0)).text_TD)


def test_what_does_not_fit_leaves_all_towers_as_they_were(bundle):
    good = random_layers(bundle.text.layouts[0], 2, 0.1)
    wrong = {next(iter(bundle.text.layouts[1].shapes)): (torch.zeros(3, 2), torch.zeros(2, 3))}
    before = bundle.prompts.empty((1, 1.0)).text_TD
    with pytest.raises(ValueError, match="as a layer of 3 to 3"):
        bundle.text.load_adapter(1, Adapter("wrong", {}, (good, wrong)))
    assert torch.equal(bundle.prompts.empty((1, 1.0)).text_TD, before)


def test_an_adapter_without_text_empties_the_slot(bundle):
    style = Adapter("style", {}, tuple(random_layers(layout, 2, 0.1) for layout in bundle.text.layouts))
    before = bundle.prompts.empty((1, 1.0)).text_TD
    bundle.text.load_adapter(1, style)
    assert not torch.equal(bundle.prompts.empty((1, 1.0)).text_TD, before)
    bundle.text.load_adapter(1, Adapter("plain", {}))
    assert torch.equal(bundle.prompts.empty((1, 1.0)).text_TD, before)


def test_text_unet_and_vae_run_at_once_with_the_same_bits(bundle):
    """Each has a lock of its own; tokenizers have none, so one thread reads prompts."""
    engine = bundle.engine("f32")
    engine.load_adapter(1, random_adapter(engine))
    rows = example_rows(load_unet(str(bundle.folder)), 32, 2)
    slotted = (*rows[:5], torch.tensor([1, 0]), rows[6])
    latents = torch.randn(1, 4, 16, 16)
    works = {
        "unet": lambda: engine(*slotted),
        "text": lambda: bundle.prompts.read([plain("a red apple")])[0].text_TD,
        "vae": lambda: bundle.decode(latents),
    }
    alone = {name: work() for name, work in works.items()}
    together = threading.Barrier(len(works))

    def repeat(name):
        together.wait()
        return [works[name]() for _ in range(6)]

    with ThreadPoolExecutor(len(works)) as pool:
        for name, made in zip(works, pool.map(repeat, works), strict=True):
            for one in made:
                assert torch.equal(one, alone[name]), name


def test_a_folder_without_a_tower_is_refused(tmp_path, bundle):
    from ssd1b.sampling.prompts import Prompts

    (tmp_path / "tokenizer").symlink_to(NANO / "tokenizer")
    with pytest.raises(ValueError, match="has no text_encoder"):
        Prompts.through(tmp_path, bundle.text)
