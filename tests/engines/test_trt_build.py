"""Plans are really built here, without a GPU, by TensorRT-RTX for an A100 (sm80), LoRA bank and dynamic axes included.

The numbers of the very same graphs are checked through ONNX Runtime; what a GPU makes of the plans is not.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from diffusers import Transformer2DModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModelWithProjection

from ssd1b.engines.bank import Bank, Layout
from ssd1b.engines.graph import ROW_INPUTS, adapted, bank_inputs, call, example_rows, layout_of, tower_layout
from ssd1b.engines.half import halved, halved_vae
from ssd1b.engines.onnx_files import bank_axes, export_decoder, export_encoder, export_tower, export_unet, write
from ssd1b.engines.tensorrt.builder import build
from ssd1b.engines.tensorrt.ensure import Ready, ensure_plans, load_plan, ready_plans
from ssd1b.engines.tensorrt.inputs import graph_hash, inputs_of
from ssd1b.engines.tensorrt.library import find
from ssd1b.engines.tensorrt.options import Job, Options, Target
from ssd1b.engines.tensorrt.profiles import Profile, Range, Serving
from ssd1b.family.table import FAMILY
from ssd1b.models.files import NANO as NANO_FOLDER
from ssd1b.models.files import load_vae
from ssd1b.sampling.decode import Decoder
from ssd1b.sizes import Size

RTX = find("tensorrt_rtx")
pytestmark = [
    pytest.mark.trt,
    pytest.mark.skipif(RTX is None, reason="TensorRT-RTX is not installed: `pip install 'ssd1b[trt-rtx]'`"),
]
A100 = Target("sm80", "tensorrt_rtx")
NANO = Options(
    Serving(sizes=(Size(128, 128), Size(160, 96)), images=4, window=77, windows=2,
            slots=Range(2, 4, 9), rank=Range(1, 4, 8))
)  # fmt: skip


def weights_bytes(path: Path) -> int:
    return path.with_name(f"{path.name}.data").stat().st_size


def run(path: Path, feed: dict[str, torch.Tensor]) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {name: value.numpy() for name, value in feed.items()})[0]


def filled_bank(layout: Layout, slots: int, rank: int, dtype=torch.float32) -> Bank:
    """A bank whose slots, but for 0, hold small random adapters."""
    bank = Bank(layout, slots, rank, dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    for array in bank.arrays:
        array[1:] = (torch.randn(array[1:].shape, generator=generator) * 0.05).to(dtype)
    return bank


class Block(nn.Module):
    """One of SSD-1B's transformers at full width, with its bank as inputs, exported as the whole UNet is."""

    def __init__(self) -> None:
        super().__init__()
        transformer = Transformer2DModel(
            20, 64, in_channels=1280, num_layers=1, cross_attention_dim=2048, use_linear_projection=True
        )
        self.block = nn.ModuleDict({"attentions": nn.ModuleList([transformer])})
        self.layout = layout_of(self)

    def forward(self, latents: torch.Tensor, text: torch.Tensor, slot: torch.Tensor, scale: torch.Tensor, *bank):
        transformer = self.block["attentions"][0]
        dtype = transformer.proj_in.weight.dtype  # norms stay float32
        with adapted(self, self.layout, slot, scale, bank):
            return transformer(latents.to(dtype), text.to(dtype), return_dict=False)[0].float()


@pytest.fixture(scope="module")
def block_graph(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("block") / "unet.onnx"
    torch.manual_seed(0)
    block = halved(Block().eval())
    with torch.no_grad():
        inputs = [*block_rows(2, 9, 11), *Bank(block.layout, 2, 2, dtype=torch.float16).arrays]
        names = ["latents", "text", "slot", "scale", *bank_inputs(block.layout)]
        hw = {0: "batch", 2: "height", 3: "width"}
        axes = {"latents": hw, "noise": hw, "text": {0: "batch", 1: "tokens"}, "slot": {0: "batch"}}
        axes |= {"scale": {0: "batch"}} | bank_axes(block.layout)
        write(block, tuple(inputs), names, ["noise"], axes, path)
    return path


def block_rows(batch: int, height: int, width: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(batch)
    return [
        torch.randn(batch, 1280, height, width, generator=generator),
        torch.randn(batch, 77, 2048, generator=generator),
        torch.arange(batch) % 3,
        torch.linspace(0.5, 1, batch),
    ]


def test_a_full_width_block_with_its_bank_builds_for_an_a100(block_graph, home):
    options = Options(Serving(sizes=(Size(256, 256), Size(192, 384)), images=16, rank=Range(1, 32, 128)))
    ready = ensure_plans(home / "plans", {"unet": block_graph}, A100, options)
    assert isinstance(ready, Ready)
    assert ready.built == ("unet",)
    plan = ready.plans["unet"]
    assert weights_bytes(block_graph) < plan.size_bytes < 1.5 * weights_bytes(block_graph)
    parts = plan.manifest["parts"]
    assert (parts["capability"], parts["library"], parts["graph"]) == ("sm80", RTX.name, graph_hash(block_graph))
    assert parts["profiles"][0]["rank"] == "1..32..128"
    again = ensure_plans(home / "plans", {"unet": block_graph}, A100, options)
    assert isinstance(again, Ready)
    assert again.built == ()
    assert again.plans["unet"].manifest == plan.manifest
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"does not take the plan .*CUDA"):
            load_plan(plan)


def test_the_full_width_blocks_numbers_through_onnx_runtime(block_graph):
    torch.manual_seed(0)
    block = Block().eval()
    bank = filled_bank(block.layout, 3, 16)
    rows = block_rows(3, 8, 12)
    with torch.no_grad():
        wanted = block(*rows, *bank.arrays)
        plain = block(*rows[:2], torch.zeros(3, dtype=torch.int64), rows[3], *bank.arrays)
    names = ["latents", "text", "slot", "scale", *bank_inputs(block.layout)]
    ours = torch.from_numpy(run(block_graph, dict(zip(names, [*rows, *(a.half() for a in bank.arrays)], strict=True))))
    error = (ours - wanted).abs().max() / wanted.std()
    assert error < 0.02, error  # eleven bits, sums of up to 5,120 terms
    change = (wanted - plain).abs().amax((1, 2, 3)) / wanted.std()
    assert change[0] == 0
    assert (change[1:] > 10 * error).all(), "the adapters must show beyond the rounding"


def test_the_nano_vae_decoder_builds_and_its_graph_is_the_decoder(tmp_path, home):
    vae = load_vae("nano")
    path = tmp_path / "vae_decoder.onnx"
    export_decoder(vae, path)
    assert ready_plans(home / "plans", {"vae_decoder": path}, A100, NANO) is None
    ready = ensure_plans(home / "plans", {"vae_decoder": path}, A100, NANO)
    assert isinstance(ready, Ready)
    assert ready_plans(home / "plans", {"vae_decoder": path}, A100, NANO) == Ready(ready.plans)
    assert ready_plans(home / "plans", {"vae_decoder": path}, Target("sm86", "tensorrt_rtx"), NANO) is None
    assert ready.plans["vae_decoder"].size_bytes > weights_bytes(path)
    latents = torch.randn(2, 4, 20, 12, generator=torch.Generator().manual_seed(0))
    pixels = torch.from_numpy(run(path, {"latents": latents}))
    with torch.no_grad():
        torch.testing.assert_close(pixels, Decoder(vae).vae.decode(latents), atol=1e-4, rtol=0)


@pytest.mark.parametrize("precision", ["f32", pytest.param("f16", marks=pytest.mark.slow)])
def test_the_other_graphs_of_a_bundle_build(precision, tmp_path, home):
    """A text tower with its bank, and the VAE's encoder."""
    tower = CLIPTextModelWithProjection.from_pretrained(NANO_FOLDER / "text_encoder_2", dtype=torch.float32).eval()
    vae = load_vae("nano")
    if precision == "f16":
        tower, vae = halved(tower), halved_vae(vae)
    window = tower.config.max_position_embeddings
    graphs = {name: tmp_path / f"{name}.onnx" for name in ("text_encoder_2", "vae_encoder")}
    export_tower(tower, tower_layout(tower), True, window, graphs["text_encoder_2"])
    export_encoder(vae, graphs["vae_encoder"])
    options = replace(NANO, serving=replace(NANO.serving, window=window))
    ready = ensure_plans(home / "plans", graphs, A100, options)
    assert isinstance(ready, Ready)
    assert ready.built == tuple(graphs)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> tuple[UNet2DConditionModel, Path]:
    torch.manual_seed(0)
    two_levels = {
        "block_out_channels": (32, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 1),
        "attention_head_dim": (1, 2),
        "layers_per_block": 1,
    }
    unet = UNet2DConditionModel(**FAMILY["nano-sdxl"] | two_levels).eval()
    path = tmp_path_factory.mktemp("tiny-unet") / "unet.onnx"
    export_unet(unet, layout_of(unet), 77, path)
    return unet, path


def check_numbers(unet: UNet2DConditionModel, path: Path) -> None:
    """The graph is the UNet, each row with its own adapter, at a size and a batch that the trace did not have."""
    layout = layout_of(unet)
    bank = filled_bank(layout, 4, 8)
    rows = list(example_rows(unet, 77, 3, (20, 12)))
    rows[5] = torch.tensor([2, 0, 3])
    with torch.no_grad(), adapted(unet, layout, rows[5], rows[6], bank.arrays):
        wanted = call(unet, *rows[:5])
    feed = dict(zip([*ROW_INPUTS, *bank_inputs(layout)], [*rows, *bank.arrays], strict=True))
    torch.testing.assert_close(torch.from_numpy(run(path, feed)), wanted, atol=1e-4, rtol=1e-4)


def test_the_tiny_unets_graph_is_the_unet(tiny):
    check_numbers(*tiny)


def test_a_unet_with_its_bank_builds_whole(tiny, home):
    """Every operator of the exported UNet is one that the library takes."""
    ready = ensure_plans(home / "plans", {"unet": tiny[1]}, A100, NANO)
    assert isinstance(ready, Ready)
    assert ready.plans["unet"].size_bytes > weights_bytes(tiny[1])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_nano_student_builds_whole(tmp_path, home):
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**FAMILY["nano-ssd-1b"]).eval()
    path = tmp_path / "unet.onnx"
    export_unet(unet, layout_of(unet), 77, path)
    check_numbers(unet, path)
    ready = ensure_plans(home / "plans", {"unet": path}, A100, NANO)
    assert isinstance(ready, Ready)
    assert weights_bytes(path) < ready.plans["unet"].size_bytes < 10 * weights_bytes(path)


def odd_graph(path: Path, op: str) -> Path:
    """A graph of one node."""
    value = partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op, ["x"], ["y"], name="the_odd_one")],
        "odd", [value("x", shape=["batch", 3, 3])], [value("y", shape=None)],
    )  # fmt: skip
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), path)
    return path


def odd_job(path: Path, most: int = 2) -> Job:
    return Job("unet", path, (Profile.of({"batch": Range(1, 1, most)}),), RTX, "sm80", Options(), {})


def test_what_the_library_does_not_take_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"not a graph that tensorrt_rtx takes: node the_odd_one \(Det\)"):
        build(odd_job(odd_graph(tmp_path / "odd.onnx", "Det")), tmp_path)
    assert build(odd_job(odd_graph(tmp_path / "fine.onnx", "Relu")), tmp_path)


def test_weights_beside_the_graph_are_part_of_its_hash(tiny, tmp_path):
    for path in tiny[1].parent.glob("unet.onnx*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    graph = tmp_path / "unet.onnx"
    assert graph_hash(graph) == graph_hash(tiny[1])
    with (tmp_path / "unet.onnx.data").open("r+b") as file:
        file.write(b"x")
    assert graph_hash(graph) != graph_hash(tiny[1])
    (tmp_path / "unet.onnx.data").unlink()
    with pytest.raises(ValueError, match=r"keeps weights in 'unet.onnx.data', which is not a file beside it"):
        graph_hash(graph)


def test_inputs_are_read_from_the_file(tiny):
    inputs = inputs_of(tiny[1])
    assert tuple(inputs)[:7] == ROW_INPUTS
    assert inputs["latents"].axes == ("batch", 4, "height", "width")
    assert inputs["slot"].dtype == "INT64"
    assert inputs["a_64x64"].axes[::3] == ("slots", "rank")
    assert inputs["b_64x64"].axes[::2] == ("slots", "rank")


def test_everything_that_matters_is_in_the_key(tiny):
    changes = ({}, {"level": 2}, {"workspace_bytes": 2**30}, {"serving": replace(NANO.serving, images=2)})
    keys = {Job.of("unet", tiny[1], A100, replace(NANO, **change)).key for change in changes}
    keys.add(Job.of("unet", tiny[1], Target("sm86", "tensorrt_rtx"), NANO).key)
    assert len(keys) == 5
    assert Job.of("unet", tiny[1], A100, replace(NANO)).key in keys
