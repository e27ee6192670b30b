"""LoRA files of three formats into one form, and what is said about the rest."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import nn

from ssd1b.adapters.formats import read

PATH = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0"
SHAPES = {PATH: (8, 6), OUT: (6, 6)}
DOWN, UP = torch.randn(2, 8), torch.randn(6, 2)


def file(tmp_path, tensors, name="style.safetensors"):
    path = tmp_path / name
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return path


@pytest.mark.parametrize(
    ("tensors", "scale"),
    [
        ({f"unet.{PATH}.lora_A.weight": DOWN, f"unet.{PATH}.lora_B.weight": UP}, 1.0),
        ({f"{PATH}.lora_A.weight": DOWN, f"{PATH}.lora_B.weight": UP}, 1.0),
        ({f"unet.{PATH}.lora.down.weight": DOWN, f"unet.{PATH}.lora.up.weight": UP}, 1.0),
        (
            {
                f"unet.{PATH}.lora.down.weight": DOWN,
                f"unet.{PATH}.lora.up.weight": UP,
                f"unet.{PATH}.alpha": torch.tensor(1.0),
            },
            0.5,
        ),
        (
            {
                f"unet.{PATH[:-5]}.processor.to_q_lora.down.weight": DOWN,
                f"unet.{PATH[:-5]}.processor.to_q_lora.up.weight": UP,
            },
            1.0,
        ),
        (
            {
                f"lora_unet_{PATH.replace('.', '_')}.lora_down.weight": DOWN,
                f"lora_unet_{PATH.replace('.', '_')}.lora_up.weight": UP,
                f"lora_unet_{PATH.replace('.', '_')}.alpha": torch.tensor(4.0),
            },
            2.0,
        ),
        (
            {
                f"lora_unet_{PATH.replace('.', '_')}.lora_down.weight": DOWN[:, :, None, None],
                f"lora_unet_{PATH.replace('.', '_')}.lora_up.weight": UP[:, :, None, None],
            },
            1.0,
        ),
    ],
)
def test_one_layer_of_each_format(tmp_path, tensors, scale):
    adapter, report = read(file(tmp_path, tensors), SHAPES)
    assert adapter.name == "style"
    assert adapter.rank == 2
    assert report.layers == (PATH,)
    assert not report.dropped
    a, b = adapter.layers[PATH]
    torch.testing.assert_close(a @ b, scale * (UP @ DOWN).T)


def test_half_precision_is_read(tmp_path):
    adapter, _ = read(
        file(tmp_path, {f"{PATH}.lora_A.weight": DOWN.half(), f"{PATH}.lora_B.weight": UP.bfloat16()}), SHAPES
    )
    assert {tensor.dtype for pair in adapter.layers.values() for tensor in pair} == {torch.float32}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.second(self.first(x))


@pytest.mark.parametrize(
    "extra", [{}, {"use_rslora": True}, {"alpha_pattern": {"second": 1}, "rank_pattern": {"second": 3}}]
)
def test_peft_gives_the_same_output(tmp_path, extra):
    torch.manual_seed(0)
    net = Net()
    model = get_peft_model(net, LoraConfig(r=2, lora_alpha=5, target_modules=["first", "second"], **extra))
    for parameter in model.parameters():
        parameter.data.normal_()
    base = {
        name.replace(".base_layer", ""): value.clone() for name, value in net.state_dict().items() if "lora" not in name
    }
    model.save_pretrained(tmp_path)
    adapter, report = read(tmp_path, {"first": (8, 6), "second": (6, 6)}, "mine")
    assert not report.dropped
    ours, theirs = Net(), Net()
    ours.load_state_dict(base)
    theirs.load_state_dict(base)
    with torch.no_grad():
        for path, (a, b) in adapter.layers.items():
            ours.get_submodule(path).weight += (a @ b).T
        x = torch.randn(3, 8)
        torch.testing.assert_close(ours(x), PeftModel.from_pretrained(theirs, tmp_path)(x), atol=1e-4, rtol=1e-4)


def test_nothing_is_dropped_silently(tmp_path):
    good = {f"{PATH}.lora_A.weight": DOWN, f"{PATH}.lora_B.weight": UP}
    bad = {
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight": "text tower",
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha": "text tower",
        "lora_unet_input_blocks_4_1_proj_in.lora_down.weight": "does not adapt",
        "something_else": "not LoRA weights",
        f"{OUT}.lora_A.weight": "lack the other half",
    }
    adapter, report = read(file(tmp_path, good | {key: torch.ones(2, 6) for key in bad}), SHAPES)
    assert set(adapter.layers) == {PATH}
    assert set(report.dropped) == set(bad)
    for key, reason in bad.items():
        assert reason in report.dropped[key]
    assert str(report).startswith("1 layers mapped, 5 keys dropped: 2 change a text tower")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({f"{OUT}.lora_A.weight": torch.ones(2, 7), f"{OUT}.lora_B.weight": torch.ones(6, 2)}, "another shape"),
        ({f"{OUT}.lora_A.weight": torch.ones(2, 6), f"{OUT}.lora_B.weight": torch.ones(6, 3)}, "another shape"),
        ({f"{OUT}.lora_A.weight": torch.ones(2, 6, 3, 3), f"{OUT}.lora_B.weight": torch.ones(6, 2)}, "convolution"),
        (
            {
                f"{OUT}.lora_A.weight": torch.ones(2, 6),
                f"{OUT}.lora_B.weight": torch.ones(6, 2),
                f"{OUT}.dora_scale": torch.ones(6),
            },
            "DoRA",
        ),
        ({f"{OUT}.hada_w1_a": torch.ones(6, 2), f"{OUT}.hada_w1_b": torch.ones(2, 6)}, "LyCORIS"),
    ],
)
def test_a_layer_that_cannot_be_used_goes_as_a_whole(tmp_path, change, reason):
    good = {f"{PATH}.lora_A.weight": DOWN, f"{PATH}.lora_B.weight": UP}
    adapter, report = read(file(tmp_path, good | change), SHAPES)
    assert set(adapter.layers) == {PATH}
    assert set(report.dropped) == set(change)
    assert all(reason in text for text in report.dropped.values())


def test_an_adapter_that_fits_nothing_is_refused(tmp_path):
    path = file(tmp_path, {"unet.other.lora_A.weight": DOWN, "unet.other.lora_B.weight": UP})
    with pytest.raises(ValueError, match="fits no layer of this model: 0 layers mapped, 2 keys dropped"):
        read(path, SHAPES)


def test_pickles_are_refused(tmp_path):
    path = tmp_path / "style.ckpt"
    torch.save({}, path)
    with pytest.raises(ValueError, match="can run code"):
        read(path, SHAPES)


def test_a_torn_file_is_refused(tmp_path):
    path = file(tmp_path, {f"{PATH}.lora_A.weight": DOWN, f"{PATH}.lora_B.weight": UP})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        read(path, SHAPES)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="no adapter at"):
        read(tmp_path / "none.safetensors", SHAPES)


def test_a_torn_config_is_refused(tmp_path):
    file(tmp_path, {"base_model.model." + PATH + ".lora_A.weight": DOWN}, "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2})[:-2])
    with pytest.raises(ValueError, match=r"adapter_config\.json is not readable"):
        read(tmp_path, SHAPES)
