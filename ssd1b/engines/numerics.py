"""How far exported graphs are from float32 in torch, measured on rows of noise.

A graph in float16 is measured twice: what is exported, in torch, where every operation rounds to float16 and may
overflow; and the graph itself in ONNX Runtime, which on a CPU computes float16 graphs in float32 from rounded weights,
so that it proves the graph and not the range.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from ssd1b.engines.graph import ROW_INPUTS, VaeDecoder, VaeEncoder, call, example_rows

# B rows, C H W latent

SIDE = 16
"""Latent positions each way of what is measured: small, because full-size models are measured on CPUs too."""


@torch.no_grad()
def unet_error(whole: UNet2DConditionModel, exported: UNet2DConditionModel, graph: Path, tokens: int) -> dict[str, Any]:
    """Return the errors of an exported UNet and of its graph without side paths.

    Raises:
        ValueError: the exported UNet overflows.
    """
    rows = example_rows(whole, tokens, 2, (SIDE, SIDE))[:5]
    feed = dict(zip(ROW_INPUTS, rows, strict=False))
    return errors("the UNet", call(whole, *rows), lambda: call(exported, *rows).float(), graph, feed)


@torch.no_grad()
def vae_error(whole: AutoencoderKL, exported: AutoencoderKL, decoder: Path, encoder: Path) -> dict[str, Any]:
    """Return the errors of an exported VAE and of its graphs.

    Raises:
        ValueError: the exported VAE overflows.
    """
    generator = torch.Generator().manual_seed(1)
    latents_BCHW = torch.randn(2, whole.config.latent_channels, SIDE, SIDE, generator=generator)
    pixels_BCHW = torch.rand(2, 3, 8 * SIDE, 8 * SIDE, generator=generator) * 2 - 1
    return {
        "decoder": errors(
            "the VAE's decoder",
            VaeDecoder(whole)(latents_BCHW),
            lambda: VaeDecoder(exported)(latents_BCHW),
            decoder,
            {"latents": latents_BCHW},
        ),
        "encoder": errors(
            "the VAE's encoder",
            VaeEncoder(whole)(pixels_BCHW)[0],
            lambda: VaeEncoder(exported)(pixels_BCHW)[0],
            encoder,
            {"pixels": pixels_BCHW},
        ),
    }


def errors(
    what: str, wanted: Tensor, exported: Callable[[], Tensor], graph: Path, feed: dict[str, Tensor]
) -> dict[str, Any]:
    """Return the errors of what was exported, in torch and as a graph."""
    found = {"torch": error(exported(), wanted)}
    if found["torch"] is None:
        raise ValueError(f"{what} overflows in float16: export it with precision f32")
    if importlib.util.find_spec("onnxruntime"):
        from ssd1b.engines.on_onnxruntime import OnnxRuntimeGraph

        out = OnnxRuntimeGraph(graph)({name: row.numpy() for name, row in feed.items()})[0]
        found["onnxruntime"] = error(torch.from_numpy(out), wanted)
    return found


def error(ours: Tensor, wanted: Tensor) -> dict[str, float] | None:
    """Return the worst element's distance and the root mean square's share of the signal's; None if not finite."""
    if not ours.isfinite().all():
        return None
    difference = ours - wanted
    share = difference.square().mean().sqrt() / wanted.square().mean().sqrt()
    return {"max": float(f"{difference.abs().max().item():.3g}"), "rms_share": float(f"{share.item():.3g}")}
