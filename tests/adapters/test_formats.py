"""LoRA files of three formats into one form, and what is said about the rest."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import nn

from ssd1b.adapters.adapter import LayerShape
from ssd1b.adapters.blockmap import BlockMap
from ssd1b.adapters.formats import METADATA, read
from ssd1b.engines.graph import layout_of
from ssd1b.family.table import FAMILY, new_unet

PATH = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0"
SHAPES = {PATH: LayerShape(8, 6), OUT: LayerShape(6, 6)}
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
    adapter, report = read(tmp_path, {"first": LayerShape(8, 6), "second": LayerShape(6, 6)}, "mine")
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
        "lora_unet_input_blocks_4_1_proj_in.lora_down.weight": "does not adapt",  # no blocks are given
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


CONV = "down_blocks.1.resnets.0.conv1"
WITH_CONV = SHAPES | {CONV: LayerShape(5, 7, 3), "one": LayerShape(5, 7, 1)}


def test_a_convolution_is_mapped_where_there_is_room_for_it(tmp_path):
    down, up = torch.randn(2, 5, 3, 3), torch.randn(7, 2, 1, 1)
    name = f"lora_unet_{CONV.replace('.', '_')}"
    path = file(
        tmp_path, {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(1.0)}
    )
    a, b = read(path, WITH_CONV)[0].layers[CONV]
    x = torch.randn(1, 5, 6, 6)
    wanted = nn.functional.conv2d(nn.functional.conv2d(x, down, padding=1), up) / 2
    made = nn.functional.conv2d(x, (a @ b).T.reshape(7, 5, 3, 3), padding=1)
    torch.testing.assert_close(made, wanted, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="3 change a convolution, for which this engine has no room"):
        read(path, SHAPES)


def test_a_convolution_in_three_parts(tmp_path):
    """LyCORIS' LoCon: 1x1 down, 3x3 in the middle, 1x1 up."""
    down, mid, up = torch.randn(2, 5, 1, 1), torch.randn(2, 2, 3, 3), torch.randn(7, 2, 1, 1)
    path = file(
        tmp_path, {f"{CONV}.lora_down.weight": down, f"{CONV}.lora_mid.weight": mid, f"{CONV}.lora_up.weight": up}
    )
    a, b = read(path, WITH_CONV)[0].layers[CONV]
    x = torch.randn(1, 5, 6, 6)
    conv = nn.functional.conv2d
    torch.testing.assert_close(
        conv(x, (a @ b).T.reshape(7, 5, 3, 3), padding=1),
        conv(conv(conv(x, down), mid, padding=1), up),
        atol=1e-4,
        rtol=1e-4,
    )


@pytest.mark.parametrize("kernel", [1, 5])
def test_a_kernel_of_another_size_is_dropped(tmp_path, kernel):
    good = {f"{PATH}.lora_A.weight": DOWN, f"{PATH}.lora_B.weight": UP}
    bad = {f"{CONV}.lora_A.weight": torch.ones(2, 5, kernel, kernel), f"{CONV}.lora_B.weight": torch.ones(7, 2, 1, 1)}
    _, report = read(file(tmp_path, good | bad), WITH_CONV)
    assert set(report.dropped) == set(bad)
    assert all("another shape" in reason for reason in report.dropped.values())


TEXT = "encoder.layers.0.self_attn.q_proj"
TOWERS = ({TEXT: LayerShape(8, 6)}, {TEXT: LayerShape(10, 6)})


@pytest.mark.parametrize(
    ("down", "up", "tower"),
    [
        ("lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight", "lora_up", 0),
        ("lora_te2_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight", "lora_up", 1),
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight", "lora_up", 0),
        (f"text_encoder.text_model.{TEXT}.lora_A.weight", "lora_B", 0),
        (f"text_encoder_2.text_model.{TEXT}.lora_A.weight", "lora_B", 1),
        (f"text_encoder_2.{TEXT}.lora_A.weight", "lora_B", 1),
        (f"text_encoder.text_model.{TEXT}.lora_linear_layer.down.weight", "lora_linear_layer.up", 0),
        (f"base_model.model.text_model.{TEXT}.lora_A.weight", "lora_B", 0),
        (f"base_model.model.text_model.{TEXT}.lora_A.weight", "lora_B", 1),
        (f"base_model.model.{TEXT}.lora_A.weight", "lora_B", 1),
    ],
)
def test_a_layer_of_a_text_tower(tmp_path, down, up, tower):
    part = next(part for part in ("lora_linear_layer.down", "lora_down", "lora_A") if part in down)
    a_RI, b_OR = torch.randn(2, TOWERS[tower][TEXT].inside), torch.randn(6, 2)
    path = file(tmp_path, {down: a_RI, down.replace(part, up): b_OR})
    adapter, report = read(path, SHAPES, text=TOWERS)
    assert not report.dropped
    assert report.layers == (f"{('text_encoder', 'text_encoder_2')[tower]}.{TEXT}",)
    assert (adapter.rank, adapter.text_rank) == (0, 2)
    a, b = adapter.text[tower][TEXT]
    torch.testing.assert_close(a @ b, (b_OR @ a_RI).T)
    assert not adapter.text[1 - tower]


def test_the_alpha_that_diffusers_keeps_in_the_header(tmp_path):
    path = tmp_path / "style.safetensors"
    header = {"unet.r": 2, "unet.lora_alpha": 6, "text_encoder.lora_alpha": 1}
    tensors = {f"unet.{PATH}.lora_A.weight": DOWN, f"unet.{PATH}.lora_B.weight": UP}
    save_file(tensors, path, {METADATA: json.dumps(header)})
    a, b = read(path, SHAPES)[0].layers[PATH]
    torch.testing.assert_close(a @ b, 3 * (UP @ DOWN).T)


def lora_of(names, shapes, rank=1):
    """A kohya file: names -> layers whose shape is that of a path."""
    tensors = {}
    for i, (name, path) in enumerate(names.items()):
        shape = shapes[path]
        kernel = (shape.kernel, shape.kernel) if shape.kernel else ()
        tensors[f"lora_unet_{name}.lora_down.weight"] = torch.full((rank, shape.inside, *kernel), float(i))
        tensors[f"lora_unet_{name}.lora_up.weight"] = torch.ones(shape.outside, rank, *(1 for _ in kernel))
    return tensors


def sgm(path, config):
    """The name of a path in kohya's files of SGM."""
    return list(BlockMap.of(config).own_names([path]))[-1]


@pytest.mark.parametrize("member", ["nano-sdxl", "nano-ssd-1b", "nano-koala-700m"])
def test_every_layer_is_known_by_its_sgm_name(tmp_path, member):
    with torch.device("meta"):
        shapes = layout_of(new_unet(member), convolutions=True).shapes
    names = {sgm(path, FAMILY[member]): path for path in shapes}
    assert len(names) == len(shapes)
    adapter, report = read(file(tmp_path, lora_of(names, shapes)), shapes, blocks=BlockMap.of(FAMILY[member]))
    assert not report.dropped
    assert report.made_for == "itself"
    for i, path in enumerate(names.values()):
        assert adapter.layers[path][0][0, 0] == i


def test_names_of_the_wild():
    """From kohya's files for SDXL, and diffusers' names of the same layers."""
    names = BlockMap.of(FAMILY["sdxl"]).own_names(
        [
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
            "mid_block.attentions.0.transformer_blocks.9.ff.net.0.proj",
            "up_blocks.0.attentions.2.proj_out",
            "down_blocks.1.downsamplers.0.conv",
            "up_blocks.1.upsamplers.0.conv",
            "down_blocks.0.resnets.1.time_emb_proj",
        ]
    )
    for name in (
        "input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        "middle_block_1_transformer_blocks_9_ff_net_0_proj",
        "output_blocks_2_1_proj_out",
        "input_blocks_6_0_op",
        "output_blocks_5_2_conv",
        "input_blocks_2_0_emb_layers_1",
    ):
        assert name in names


@pytest.mark.parametrize("spelling", ["sgm", "diffusers"])
def test_an_adapter_for_sdxl_finds_the_blocks_that_ssd_1b_kept(tmp_path, spelling):
    """SSD-1B's stack of four is SDXL's blocks 0, 1, 2 and 6."""
    with torch.device("meta"):
        base = layout_of(new_unet("nano-sdxl")).shapes
        shapes = layout_of(new_unet("nano-ssd-1b")).shapes
    rename = (
        (lambda path: sgm(path, FAMILY["nano-sdxl"])) if spelling == "sgm" else (lambda path: path.replace(".", "_"))
    )
    names = {rename(path): path for path in base}
    adapter, report = read(file(tmp_path, lora_of(names, base)), shapes, blocks=BlockMap.of(FAMILY["nano-ssd-1b"]))
    assert report.made_for == "base"
    assert set(adapter.layers) == set(shapes)
    order = list(base)
    stack = "down_blocks.2.attentions.0.transformer_blocks"
    for own, theirs in {0: 0, 1: 1, 2: 2, 3: 6}.items():
        rest = "attn1.to_q"
        assert adapter.layers[f"{stack}.{own}.{rest}"][0][0, 0] == order.index(f"{stack}.{theirs}.{rest}")
    dropped = {key for key in report.dropped if key.endswith("lora_down.weight")}
    assert len(dropped) == len(base) - len(shapes)
    assert set(report.dropped.values()) == {"belong to a block that was carved out of this model"}
    assert "made for the model that this one was carved from" in str(report)


def test_an_adapter_for_ssd_1b_itself_is_read_by_number(tmp_path):
    with torch.device("meta"):
        shapes = layout_of(new_unet("nano-ssd-1b")).shapes
    names = {path.replace(".", "_"): path for path in shapes}
    blocks, path = BlockMap.of(FAMILY["nano-ssd-1b"]), file(tmp_path, lora_of(names, shapes))
    adapter, report = read(path, shapes, blocks=blocks)
    assert (report.made_for, set(adapter.layers), dict(report.dropped)) == ("itself", set(shapes), {})
    last = "down_blocks.2.attentions.0.transformer_blocks.3.attn1.to_q"
    assert adapter.layers[last][0][0, 0] == list(shapes).index(last)
    forced, report = read(path, shapes, blocks=blocks, made_for="base")
    assert last not in forced.layers
    assert set(report.dropped.values()) == {"belong to a block that was carved out of this model"}


def test_a_native_adapter_with_convolutions_is_not_taken_for_the_bases(tmp_path):
    """KOALA's second layer on the way up is SDXL's third, and SDXL's second is gone: the name alone says nothing."""
    with torch.device("meta"):
        shapes = layout_of(new_unet("nano-koala-700m")).shapes
    conv = {"up_blocks_0_resnets_1_conv1": next(iter(shapes))}
    names = {path.replace(".", "_"): path for path in shapes} | conv
    _, report = read(file(tmp_path, lora_of(names, shapes)), shapes, blocks=BlockMap.of(FAMILY["nano-koala-700m"]))
    assert report.made_for == "itself"
    assert len(report.dropped) == 2


def test_a_model_without_a_base_cannot_be_asked_for_it(tmp_path):
    path = file(tmp_path, {f"{PATH}.lora_A.weight": DOWN, f"{PATH}.lora_B.weight": UP})
    for blocks in (None, BlockMap.of(FAMILY["nano-sdxl"])):
        with pytest.raises(ValueError, match="was not carved from another that is known"):
            read(path, SHAPES, blocks=blocks, made_for="base")
