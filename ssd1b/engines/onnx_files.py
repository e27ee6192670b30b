"""Writing the graphs: UNet, text towers and VAE as ONNX, each beside one file of weights.

Everything that may vary is a dynamic axis: batch, height, width, tokens, and slots and rank of the bank. The trace goes
through the TorchScript exporter: seconds where the newer one takes minutes. It runs on an odd size, so that the UNet's
way up takes its sizes from the way down and any multiple of 8 pixels works.

Weights lie in a file of their own (`NAME.onnx.data`): a graph with its weights inside ends at 2 GB, and the graph
without side paths shares them.
"""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from ssd1b.engines.bank import Bank, Layout
from ssd1b.engines.graph import (
    ROW_INPUTS,
    TOWER_INPUTS,
    AdaptedTower,
    AdaptedUNet,
    VaeDecoder,
    VaeEncoder,
    bank_inputs,
    example_rows,
)
from ssd1b.engines.parts import plain_name

OPSET = 17
ADAPTER_INPUTS = ("slot", "scale")
TRACED = (9, 11)
"""Height and width of the latents in a trace: odd, so that no size is halved without a rest."""
INLINE_BYTES = 1024
"""Tensors from this size on lie in the file of weights; small ones are shapes, which backends want to see."""
HW = {0: "batch", 2: "height", 3: "width"}
Axes = dict[str, dict[int, str]]
"""Input or output -> its dynamic axes by name."""


def data_path(path: Path) -> Path:
    """Return where the weights of a graph lie."""
    return path.with_name(f"{path.name}.data")


def bank_axes(layout: Layout) -> Axes:
    return {name: {0: "slots", 3 if name.startswith("a") else 2: "rank"} for name in bank_inputs(layout)}


def unet_axes(layout: Layout) -> Axes:
    """Return the dynamic axes of the UNet's graph."""
    rows: Axes = {name: {0: "batch"} for name in ROW_INPUTS}
    return rows | {"latents": HW, "noise": HW, "text": {0: "batch", 1: "tokens"}} | bank_axes(layout)


@torch.no_grad()
def export_unet(unet: UNet2DConditionModel, layout: Layout, tokens: int, path: Path) -> None:
    """Write the UNet with the bank's inputs, in its precision, and the same without them (`plain_name`).

    tokens is the text's length in the trace.
    """
    bank = Bank(layout, 2, 2, dtype=unet.dtype)
    inputs = (*example_rows(unet, tokens, 2, TRACED), *bank.arrays)
    names = [*ROW_INPUTS, *bank_inputs(layout)]
    write(AdaptedUNet(unet, layout), inputs, names, ["noise"], unet_axes(layout), path)
    write_plain(path, layout)


@torch.no_grad()
def export_tower(tower: Any, layout: Layout, pooled: bool, tokens: int, path: Path) -> None:
    """Write a text tower with its bank's inputs, and the same without them; pooled: it has a projection."""
    bank = Bank(layout, 2, 2, dtype=tower.dtype)
    eos = int(tower.config.eos_token_id)
    ids_BW = torch.randint(0, min(eos, int(tower.config.vocab_size)), (2, tokens))
    ids_BW[:, -1] = eos
    outputs = ["hidden", "pooled"] if pooled else ["hidden"]
    axes: Axes = {name: {0: "batch"} for name in (*TOWER_INPUTS, *outputs)}
    axes |= {name: {0: "batch", 1: "tokens"} for name in ("ids", "hidden")} | bank_axes(layout)
    inputs = (ids_BW, torch.zeros(2, dtype=torch.int64), torch.ones(2), *bank.arrays)
    names = [*TOWER_INPUTS, *bank_inputs(layout)]
    write(AdaptedTower(tower, layout, pooled), inputs, names, outputs, axes, path)
    write_plain(path, layout)


@torch.no_grad()
def export_decoder(vae: AutoencoderKL, path: Path) -> None:
    """Write the VAE's decoder, in its precision."""
    latents_BCHW = torch.randn(2, vae.config.latent_channels, *TRACED)
    write(VaeDecoder(vae), (latents_BCHW,), ["latents"], ["pixels"], {"latents": HW, "pixels": HW}, path)


@torch.no_grad()
def export_encoder(vae: AutoencoderKL, path: Path) -> None:
    """Write the VAE's encoder, in its precision."""
    pixels_BCHW = torch.randn(2, 3, *(8 * side for side in TRACED))
    axes = dict.fromkeys(("pixels", "mean", "std"), HW)
    write(VaeEncoder(vae), (pixels_BCHW,), ["pixels"], ["mean", "std"], axes, path)


def write(
    module: nn.Module, inputs: tuple[Tensor, ...], names: Sequence[str], outputs: Sequence[str], axes: Axes, path: Path
) -> None:
    """Trace a module and write its graph and its weights."""
    with tempfile.TemporaryDirectory(dir=path.parent) as aside, warnings.catch_warnings():
        # The tracer warns that sizes become constants: those that do are the model's own.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", message="Constant folding")  # strided slices are left as they are
        warnings.filterwarnings("ignore", message="Exporting aten::index")  # no index of ours is negative
        warnings.simplefilter("ignore", DeprecationWarning)  # of dynamo=False, which exports in seconds, not minutes
        torch.onnx.export(
            module.eval(),
            inputs,
            Path(aside) / path.name,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(names),
            output_names=list(outputs),
            dynamic_axes=axes,
        )
        model = onnx.load(Path(aside) / path.name)
    data_path(path).unlink(missing_ok=True)  # onnx would append to it
    onnx.save(
        model, path, save_as_external_data=True, location=data_path(path).name, size_threshold=INLINE_BYTES
    )  # fmt: skip


def write_plain(path: Path, layout: Layout) -> None:
    """Write the graph of an exported one without its side paths; it reads the same file of weights."""
    onnx.save(
        without_adapters(onnx.load(path, load_external_data=False), layout), path.with_name(plain_name(path.name))
    )


def without_adapters(model: onnx.ModelProto, layout: Layout) -> onnx.ModelProto:
    """Return the exported UNet without its side paths: same weights, same result where every slot is 0.

    Whatever is computed from the bank goes; where it is added to a layer's output, that output takes the sum's place.
    """
    removed = {*bank_inputs(layout), *ADAPTER_INPUTS}
    of_bank, renamed, kept = set(removed), dict[str, str](), []
    for node in model.graph.node:  # in topological order, as ONNX demands
        tainted = [name for name in node.input if name in of_bank]
        if node.op_type == "Add" and len(tainted) == 1:
            clean = next(name for name in node.input if name not in of_bank)
            renamed[node.output[0]] = renamed.get(clean, clean)
        elif tainted:
            of_bank.update(node.output)
        else:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [renamed.get(name, name) for name in node.input]
            kept.append(copy)
    live, used = {value.name for value in model.graph.output}, []
    for node in reversed(kept):  # the constants that only the side paths read go too
        if live & set(node.output):
            used.append(node)
            live.update(node.input)
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    del plain.graph.node[:]
    plain.graph.node.extend(reversed(used))
    inputs = [value for value in plain.graph.input if value.name not in removed]
    del plain.graph.input[:]
    plain.graph.input.extend(inputs)
    assert not any(value.name in of_bank | renamed.keys() for value in plain.graph.output)
    return plain
