"""The UNet with the LoRA bank as inputs, in eager torch and as ONNX.

Every Linear of the attention blocks computes x W' + scale * (x A[slot]) B[slot], each row with its own slot and scale.
The side paths hang on forward hooks for the length of one call, so the UNet itself stays untouched: it may be one that
is being trained. Export goes through the TorchScript exporter: seconds where the newer one takes minutes.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from ssd1b.engines.bank import Bank, Layout

# B rows, L layers of a group, I O widths of a layer, R rank, T positions; C H W latent, D E text widths

ROW_INPUTS = ("latents", "timestep", "text", "pooled", "time_ids", "slot", "scale")
OPSET = 17


def layout_of(unet: UNet2DConditionModel) -> Layout:
    """Return the layers that adapters may change: every Linear of the attention blocks."""
    return Layout.of(
        {
            path: (module.in_features, module.out_features)
            for path, module in unet.named_modules()
            if isinstance(module, nn.Linear) and ".attentions." in path
        }
    )


def bank_inputs(layout: Layout) -> list[str]:
    """Return the names of the bank's inputs, in the order of `Bank.arrays`."""
    return [f"{side}_{group.inside}x{group.outside}" for group in layout.groups for side in ("a", "b")]


@contextmanager
def adapted(
    unet: UNet2DConditionModel, layout: Layout, slot_B: Tensor, scale_B: Tensor, bank: Sequence[Tensor]
) -> Iterator[None]:
    """Hang the side paths on the UNet while the context lasts. bank holds A and B of each group, as `Bank.arrays`."""
    modules = dict(unet.named_modules())
    handles = []
    for i, group in enumerate(layout.groups):
        a_BLIR = bank[2 * i].index_select(0, slot_B)
        b_BLRO = bank[2 * i + 1].index_select(0, slot_B) * scale_B[:, None, None, None]
        for layer, path in enumerate(group.paths):
            hook = side_path(a_BLIR[:, layer], b_BLRO[:, layer])
            handles.append(modules[path].register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def side_path(a_BIR: Tensor, b_BRO: Tensor) -> Any:
    """Return a forward hook that adds the low-rank path to a Linear of (B, T, I) inputs."""

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], out_BTO: Tensor) -> Tensor:
        return out_BTO + torch.bmm(torch.bmm(inputs[0], a_BIR), b_BRO)

    return hook


def call(
    unet: UNet2DConditionModel,
    latents_BCHW: Tensor,
    timestep_B: Tensor,
    text_BTD: Tensor,
    pooled_BE: Tensor,
    time_ids_B6: Tensor,
) -> Tensor:
    """Return the noise_BCHW that the UNet predicts."""
    added = {"text_embeds": pooled_BE, "time_ids": time_ids_B6}
    noise_BCHW: Tensor = unet(latents_BCHW, timestep_B, text_BTD, added_cond_kwargs=added, return_dict=False)[0]
    return noise_BCHW


class AdaptedUNet(nn.Module):
    """The exported graph: row inputs, then the bank."""

    def __init__(self, unet: UNet2DConditionModel, layout: Layout) -> None:
        super().__init__()
        self.unet, self.layout = unet, layout

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return noise_BCHW of inputs in the order of ROW_INPUTS and `bank_inputs`."""
        rows, bank = inputs[: len(ROW_INPUTS)], inputs[len(ROW_INPUTS) :]
        *conditions, slot_B, scale_B = rows
        with adapted(self.unet, self.layout, slot_B, scale_B, bank):
            return call(self.unet, *conditions)


class VaeDecoder(nn.Module):
    """Latents as the UNet sees them to pixels in [-1, 1]."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents_BCHW: Tensor) -> Tensor:
        return self.vae.decode(latents_BCHW / self.vae.config.scaling_factor).sample  # type: ignore[no-any-return]


def example_rows(unet: UNet2DConditionModel, tokens: int, batch: int = 2) -> tuple[Tensor, ...]:
    """Return inputs of the right shapes, in the order of ROW_INPUTS: what a trace runs on."""
    config = unet.config
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    side = config.sample_size
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(batch, config.in_channels, side, side, generator=generator),
        torch.linspace(900, 100, batch),
        torch.randn(batch, tokens, config.cross_attention_dim, generator=generator),
        torch.randn(batch, pooled, generator=generator),
        torch.tensor([[8.0 * side, 8 * side, 0, 0, 8 * side, 8 * side]] * batch),
        torch.zeros(batch, dtype=torch.int64),
        torch.ones(batch),
    )


@torch.no_grad()
def export_unet(unet: UNet2DConditionModel, bank: Bank, tokens: int, path: Path) -> None:
    """Write the UNet with the bank's inputs as ONNX.

    The batch and the length of the text are dynamic; sizes, slots and rank are fixed. tokens is the text's length in
    the trace.
    """
    rows = example_rows(unet, tokens)
    names = [*ROW_INPUTS, *bank_inputs(bank.layout)]
    inputs = (*rows, *(torch.from_numpy(array) for array in bank.arrays))
    axes = {name: {0: "batch"} for name in (*ROW_INPUTS, "noise")} | {"text": {0: "batch", 1: "tokens"}}
    write(AdaptedUNet(unet, bank.layout), inputs, names, axes, "noise", path)


@torch.no_grad()
def export_decoder(vae: AutoencoderKL, latent_side: int, path: Path) -> None:
    """Write the VAE decoder as ONNX; the batch is dynamic."""
    latents_BCHW = torch.randn(2, vae.config.latent_channels, latent_side, latent_side)
    axes = {name: {0: "batch"} for name in ("latents", "pixels")}
    write(VaeDecoder(vae), (latents_BCHW,), ["latents"], axes, "pixels", path)


Axes = dict[str, dict[int, str]]
"""Input or output -> its dynamic axes by name."""


def write(module: nn.Module, inputs: tuple[Tensor, ...], names: list[str], axes: Axes, out: str, path: Path) -> None:
    with warnings.catch_warnings():
        # The tracer warns that sizes become constants: they are meant to, but for the axes named.
        warnings.filterwarnings("ignore", message="Converting a tensor to a Python boolean")
        warnings.simplefilter("ignore", DeprecationWarning)  # of dynamo=False, which exports in seconds, not minutes
        torch.onnx.export(
            module.eval(),
            inputs,
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            output_names=[out],
            dynamic_axes=axes,
        )
