"""Models in half precision that compute what they compute in float32.

What breaks in float16 is range, not precision: it ends at 65,504. Norms sum squares, so they stay in float32, whose
cost a compiler hides. SDXL's VAE has activations beyond the end of float16 (its config says `force_upcast`); there the
stream through its residual blocks is divided by a power of two, which is exact in binary: a norm takes the factor out
again if its epsilon shrinks along.
"""

import copy
import math
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)
ROOM = 2.0**11
"""What the largest activation measured is brought down to: the end of float16 is 32 times as far."""


def halved(model: Model, dtype: torch.dtype = torch.float16) -> Model:
    """Return a copy of a model in a 16-bit precision, its norms in float32."""
    made = copy.deepcopy(model).to(dtype)
    for module in made.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.float()
            module.register_forward_pre_hook(lambda _module, inputs: (inputs[0].float(),))
            module.register_forward_hook(lambda _module, _inputs, out, dtype=dtype: out.to(dtype))
    return made


def halved_vae(vae: AutoencoderKL, side: int = 32) -> AutoencoderKL:
    """Return a VAE in float16 whose activations have room, both ways.

    How much they need is measured on noise of this many latent positions each way.
    """
    made = copy.deepcopy(vae).float()
    generator = torch.Generator().manual_seed(0)
    latents_BCHW = torch.randn(2, vae.config.latent_channels, side, side, generator=generator)
    pixels_BCHW = torch.rand(2, 3, 8 * side, 8 * side, generator=generator) * 2 - 1
    scaled_down(made.decoder, lambda: made.decode(latents_BCHW / vae.config.scaling_factor))
    scaled_down(made.encoder, lambda: made.encode(pixels_BCHW))
    return halved(made)


@torch.no_grad()
def scaled_down(half: Any, run: Callable[[], object]) -> None:
    """Rescale the encoder or decoder of a VAE in place, so that what `run` makes of it stays within ROOM."""
    resnets = [module for module in half.modules() if isinstance(module, ResnetBlock2D)]
    with peaks(half) as peak:
        run()
    stream = factor(max(value for module, value in peak.items() if on_stream(module, half)))
    for resnet in resnets:
        inner = factor(peak[resnet.conv1])
        scale(resnet.conv1, 1 / inner)
        resnet.norm2.eps /= inner**2
    scale(half.conv_in, 1 / stream)
    for name, module in half.named_modules():
        if isinstance(module, ResnetBlock2D):
            scale(module.conv2, 1 / stream)
            if module.conv_shortcut is not None:
                scale_bias(module.conv_shortcut, 1 / stream)
            module.norm1.eps /= stream**2
        elif name.endswith("to_out.0"):
            scale(module, 1 / stream)
        elif name.endswith("group_norm"):
            module.eps /= stream**2
        elif name.endswith(("upsamplers.0.conv", "downsamplers.0.conv")):
            scale_bias(module, 1 / stream)
    half.conv_norm_out.eps /= stream**2


def on_stream(module: nn.Module, half: Any) -> bool:
    """Return whether a module's output runs through the residual blocks."""
    return module is half.conv_in or isinstance(module, ResnetBlock2D)


@contextmanager
def peaks(model: nn.Module) -> Any:
    """Yield module -> the largest magnitude of its output, of all that runs in the context."""
    found: dict[nn.Module, float] = {}

    def note(module: nn.Module, _inputs: object, out: object) -> None:
        if isinstance(out, Tensor):
            found[module] = max(found.get(module, 0.0), out.abs().max().item())

    handles = [module.register_forward_hook(note) for module in model.modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def factor(peak: float) -> float:
    """Return the power of two that brings a peak to ROOM or below."""
    return 2.0 ** max(0, math.ceil(math.log2(peak / ROOM)))


def scale(layer: Any, by: float) -> None:
    layer.weight *= by
    scale_bias(layer, by)


def scale_bias(layer: Any, by: float) -> None:
    if layer.bias is not None:
        layer.bias *= by
