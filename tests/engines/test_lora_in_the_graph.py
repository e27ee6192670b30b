"""LoRA files of the wild through the bank, all in one batch, against diffusers and PEFT, one file at a time."""

import random

import pytest
import torch
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import save_file

from ssd1b.adapters.adapter import Adapter
from ssd1b.engines.bundle import Bundle
from ssd1b.engines.checks import random_layers
from ssd1b.engines.graph import call, example_rows
from ssd1b.models.files import load_pipeline, load_unet
from ssd1b.sampling.weights import plain

TOKENS = 32
SAME = 1e-3
PROMPTS = ("a red apple", "a blue cat on a table", "two dogs")
BACKENDS = ("torch", "onnxruntime", "openvino")


def kohya(adapter, blocks):
    """The tensors of a file as kohya's scripts write it: SGM names, alpha apart, text towers beside the UNet."""
    tensors = {}
    for prefix, layers in zip(("lora_unet", "lora_te1", "lora_te2"), (adapter.layers, *adapter.text), strict=False):
        for path, (a, b) in layers.items():
            name = f"text_model.{path}".replace(".", "_") if "te" in prefix else list(blocks.own_names([path]))[-1]
            conv = path.split(".")[-1].startswith("conv")
            side = 1 if "shortcut" in path else 3
            down = a.T.reshape(a.shape[1], -1, side, side) if conv else a.T
            up = b.T[:, :, None, None] if conv else b.T
            rank = a.shape[1]
            tensors |= {
                f"{prefix}_{name}.lora_down.weight": down.contiguous(),
                f"{prefix}_{name}.lora_up.weight": up.contiguous() * 2,
                f"{prefix}_{name}.alpha": torch.tensor(rank / 2),
            }
    return tensors


def diffusers_names(adapter):
    """The tensors of a file as diffusers writes it."""
    tensors = {}
    for prefix, layers in zip(
        ("unet", "text_encoder", "text_encoder_2"), (adapter.layers, *adapter.text), strict=False
    ):
        for path, (a, b) in layers.items():
            name = path if prefix == "unet" else f"text_model.{path}"
            tensors |= {f"{prefix}.{name}.lora_A.weight": a.T.contiguous()}
            tensors |= {f"{prefix}.{name}.lora_B.weight": b.T.contiguous()}
    return tensors


@pytest.fixture(scope="module")
def files(conv_bundle, tmp_path_factory):
    """Slot -> a file: linear layers alone; with text towers; everything, convolutions too."""
    folder = tmp_path_factory.mktemp("loras")
    bundle = Bundle.load(conv_bundle.folder, "torch")
    engine = bundle.engine()
    everywhere = random_layers(engine.layout, 3, 0.05, seed=1)
    # what lies outside of the blocks no converter of diffusers knows
    everywhere = {path: pair for path, pair in everywhere.items() if "_blocks." in path or "mid_block." in path}
    linear = {
        path: pair for path, pair in random_layers(engine.layout, 2, 0.1, seed=2).items() if ".attentions." in path
    }
    text = tuple(random_layers(layout, 2, 0.1, seed=3) for layout in bundle.text.layouts)
    made = {
        1: diffusers_names(Adapter("linear", linear)),
        2: diffusers_names(Adapter("with-text", linear, text)),
        3: kohya(Adapter("all", everywhere, text), bundle.blocks),
    }
    for slot, tensors in made.items():
        save_file(tensors, folder / f"{slot}.safetensors")
    return {slot: folder / f"{slot}.safetensors" for slot in made}


@pytest.fixture(scope="module")
def batch():
    """Slot, scale and prompt of rows in random order: every slot twice, and none."""
    rows = [(slot, scale) for slot in (1, 2, 3) for scale in (1.0, 0.6)] + [(0, 1.0), (0, 1.0)]
    random.Random(0).shuffle(rows)
    return [(slot, scale, PROMPTS[i % 3]) for i, (slot, scale) in enumerate(rows)]


@pytest.fixture(scope="module")
def theirs(tiny_model, files, batch):
    """Text, pooled and noise of every row as diffusers makes them with one file loaded."""
    diffusers_logging.set_verbosity_error()
    pipeline = load_pipeline(str(tiny_model))
    rows = example_rows(pipeline.unet, TOKENS, len(batch))
    made = {}
    for slot in (0, *files):
        if slot:
            pipeline.load_lora_weights(files[slot], adapter_name="one")
        for i, (_, scale, prompt) in enumerate(row if row[0] == slot else (None, 0, "") for row in batch):
            if batch[i][0] != slot:
                continue
            if slot:
                pipeline.set_adapters("one", scale)
            with torch.no_grad():
                text, _, pooled, _ = pipeline.encode_prompt([prompt], do_classifier_free_guidance=False)
                noise = call(pipeline.unet, rows[0][i : i + 1], rows[1][i : i + 1], text, pooled, rows[4][i : i + 1])
            made[i] = text[0], pooled[0], noise[0]
        if slot:
            pipeline.unload_lora_weights()
    return [torch.stack(column) for column in zip(*(made[i] for i in range(len(batch))), strict=True)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_slot_is_peft_in_one_mixed_batch(conv_bundle, tiny_model, files, batch, theirs, backend):
    bundle = Bundle.load(conv_bundle.folder, backend)
    engine = bundle.engine("f32")
    for slot, file in files.items():
        adapter, report = bundle.read_adapter(file, engine)
        assert not report.dropped
        engine.load_adapter(slot, adapter)
        bundle.text.load_adapter(slot, adapter)
    slots, scales, prompts = zip(*batch, strict=True)
    texts = bundle.prompts.read([plain(prompt) for prompt in prompts], list(zip(slots, scales, strict=True)))
    text_BTD, pooled_BE = (torch.stack(column) for column in zip(*texts, strict=True))
    torch.testing.assert_close(text_BTD, theirs[0], atol=SAME, rtol=0)
    torch.testing.assert_close(pooled_BE, theirs[1], atol=SAME, rtol=0)
    rows = example_rows(load_unet(str(tiny_model)), TOKENS, len(batch))
    slot_B, scale_B = torch.tensor(slots), torch.tensor(scales)
    noise = engine(rows[0], rows[1], text_BTD, pooled_BE, rows[4], slot_B, scale_B)
    torch.testing.assert_close(noise, theirs[2], atol=SAME, rtol=0)
    plainly = engine(rows[0], rows[1], text_BTD, pooled_BE, rows[4], torch.zeros_like(slot_B), scale_B)
    changed = (noise - plainly).flatten(1).abs().amax(1)
    assert (changed[slot_B > 0] > 20 * SAME).all()
    assert (changed[slot_B == 0] < SAME / 10).all()


@pytest.mark.parametrize("backend", ["torch", "onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_composite_slot_is_the_sum(conv_bundle, tiny_model, files, backend):
    bundle = Bundle.load(conv_bundle.folder, backend)
    engine = bundle.engine("f32", rank=8)
    adapters = [bundle.read_adapter(files[slot], engine)[0] for slot in (1, 3)]
    engine.load_adapter(2, Adapter.combine([(adapters[0], 0.7), (adapters[1], -0.4)]))
    unet = load_unet(str(tiny_model))
    rows = example_rows(unet, TOKENS, 2)
    noise = engine(*rows[:5], torch.tensor([2, 0]), rows[6])
    with torch.no_grad():
        for adapter, weight in zip(adapters, (0.7, -0.4), strict=True):
            for path, (a, b) in adapter.layers.items():
                layer = unet.get_submodule(path)
                layer.weight += weight * (a @ b).T.reshape(layer.weight.shape)
        torch.testing.assert_close(noise[0], call(unet, *rows[:5])[0], atol=SAME, rtol=0)


def test_an_engine_opens_with_the_room_asked_for(tiny_bundle):
    for backend in BACKENDS:
        engine = Bundle.load(tiny_bundle.folder, backend).engine(slots=12, rank=16)
        assert (engine.slots, engine.rank) == (12, 16)
        with pytest.raises(ValueError, match="hold no adapter"):
            Bundle.load(tiny_bundle.folder, backend).engine(slots=1)
