"""A model with the LoRA bank as inputs: side paths in eager torch, and the modules that are exported.

Every adapted layer computes x W' + scale * (x A[slot]) B[slot], each row with its own slot and scale. The side paths
hang on forward hooks for the length of one call, so the model itself stays untouched: it may be one that is being
trained. All row inputs are float32 (ids and slots int64) whatever the model computes in, and so is what comes out.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from ssd1b.adapters.adapter import LayerShape
from ssd1b.engines.bank import Layout

# B rows, L layers of a group, I O widths of a layer, R rank, K positions of a kernel, T positions; C H W latent,
# W tokens of a window, D E text widths

ROW_INPUTS = ("latents", "timestep", "text", "pooled", "time_ids", "slot", "scale")
TOWER_INPUTS = ("ids", "slot", "scale")
TEXT_MODEL = "text_model."


def layout_of(unet: UNet2DConditionModel, convolutions: bool = False) -> Layout:
    """Return the layers that adapters may change: every Linear of the attention blocks.

    With convolutions, every Linear and every convolution of the whole UNet, as LoCon and its like train them.
    """
    shapes = {path: shape for path, module in unet.named_modules() if (shape := shape_of(module))}
    return Layout.of(
        {path: shape for path, shape in shapes.items() if convolutions or (".attentions." in path and not shape.kernel)}
    )


def tower_layout(tower: nn.Module) -> Layout:
    """Return the layers of a text tower that adapters may change: every Linear of its layers."""
    return Layout.of(
        {
            path.removeprefix(TEXT_MODEL): shape
            for path, module in tower.named_modules()
            if ".layers." in path and (shape := shape_of(module))
        }
    )


def shape_of(module: nn.Module) -> LayerShape | None:
    """Return the shape of a layer that side paths can hang on, else None."""
    if isinstance(module, nn.Linear):
        return LayerShape(module.in_features, module.out_features)
    if isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding == (module.kernel_size[0] // 2,) * 2:
        return LayerShape(module.in_channels, module.out_channels, module.kernel_size[0], module.stride[0])
    return None


def bank_inputs(layout: Layout) -> list[str]:
    """Return the names of the bank's inputs, in the order of `Bank.arrays`."""
    return [f"{side}_{group.name}" for group in layout.groups for side in ("a", "b")]


@contextmanager
def adapted(
    model: nn.Module, layout: Layout, slot_B: Tensor, scale_B: Tensor, bank: Sequence[Tensor]
) -> Iterator[None]:
    """Hang the side paths on a model while the context lasts. bank holds A and B of each group, as `Bank.arrays`.

    A layer's A and B are taken out of the bank when it runs: those of all layers at once would be copied twice, and at
    full width they are a hundred megabytes a row.
    """
    modules = {path.removeprefix(TEXT_MODEL): module for path, module in model.named_modules()}
    handles = []
    for i, group in enumerate(layout.groups):
        hook, layers = conv_path if group.shape.kernel else linear_path, len(group.paths)
        a, b = bank[2 * i].flatten(0, 1), bank[2 * i + 1].flatten(0, 1)  # slot by slot, layer by layer
        scale_B11 = scale_B.to(b.dtype)[:, None, None]
        for layer, path in enumerate(group.paths):
            place = Place(a, b, slot_B * layers + layer, scale_B11)
            handles.append(modules[path].register_forward_hook(hook(place, group.shape)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Place(NamedTuple):
    """Where a layer's adapters lie in the bank, and how much they weigh."""

    a: Tensor
    b: Tensor
    at_B: Tensor
    scale_B11: Tensor

    def taken(self) -> tuple[Tensor, Tensor]:
        """Return A and the weighed B of every row."""
        return self.a.index_select(0, self.at_B), self.b.index_select(0, self.at_B) * self.scale_B11


Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


def linear_path(place: Place, _shape: LayerShape) -> Hook:
    """Return a forward hook that adds the low-rank path to a Linear of (B, T, I) or (B, I) inputs."""

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        a_BIR, b_BRO = place.taken()
        x_BTI = inputs[0] if inputs[0].dim() == 3 else inputs[0][:, None]
        return out + torch.bmm(torch.bmm(x_BTI, a_BIR), b_BRO).reshape(out.shape)

    return hook


def conv_path(place: Place, shape: LayerShape) -> Hook:
    """Return a forward hook that adds the low-rank path to a convolution.

    One product takes every pixel to the R channels of each position of the kernel; those images, shifted to where the
    kernel looks and added up, are the convolution by A. It needs only what every backend has: a convolution whose
    kernels are inputs needs its groups fixed when the graph is made, and unfolding copies all I channels K times.
    """

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], out_BOHW: Tensor) -> Tensor:
        a_BKRI, b_BRO = place.taken()
        x_BIHW = inputs[0]
        height, width = x_BIHW.shape[2:]
        image_BKRT = a_BKRI @ x_BIHW.flatten(2)[:, None]
        # not unflatten, which a trace would fix to the sizes it saw
        low_BRT = shifted_sum(image_BKRT.reshape(*image_BKRT.shape[:3], height, width), shape).flatten(2)
        return out_BOHW + torch.bmm(b_BRO.transpose(1, 2), low_BRT).reshape(out_BOHW.shape)

    return hook


def shifted_sum(image_BKRHW: Tensor, shape: LayerShape) -> Tensor:
    """Return sum over the kernel's positions of their images, each moved to where the kernel looks."""
    kernel, stride = shape.kernel, shape.stride
    height, width = image_BKRHW.shape[3:]
    padded = F.pad(image_BKRHW, (kernel // 2,) * 4)
    places = [(y, x) for y in range(kernel) for x in range(kernel)]
    total = None
    for k, (y, x) in enumerate(places):
        one = padded[:, k, :, y : y + height : stride, x : x + width : stride]
        total = one if total is None else total + one
    assert total is not None
    return total


def call(
    unet: UNet2DConditionModel,
    latents_BCHW: Tensor,
    timestep_B: Tensor,
    text_BTD: Tensor,
    pooled_BE: Tensor,
    time_ids_B6: Tensor,
) -> Tensor:
    """Return the noise_BCHW that the UNet predicts, in its precision.

    Pooled and time ids stay float32: diffusers embeds them in float32 and casts what comes out.
    """
    added = {"text_embeds": pooled_BE, "time_ids": time_ids_B6}
    latents_BCHW, text_BTD = latents_BCHW.to(unet.dtype), text_BTD.to(unet.dtype)
    noise_BCHW: Tensor = unet(latents_BCHW, timestep_B, text_BTD, added_cond_kwargs=added, return_dict=False)[0]
    return noise_BCHW


class AdaptedUNet(nn.Module):
    """The exported UNet: row inputs, then the bank."""

    def __init__(self, unet: UNet2DConditionModel, layout: Layout) -> None:
        super().__init__()
        self.unet, self.layout = unet, layout

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return noise_BCHW, float32, of inputs in the order of ROW_INPUTS and `bank_inputs`."""
        rows, bank = inputs[: len(ROW_INPUTS)], inputs[len(ROW_INPUTS) :]
        *conditions, slot_B, scale_B = rows
        with adapted(self.unet, self.layout, slot_B, scale_B, bank):
            return call(self.unet, *conditions).float()


class AdaptedTower(nn.Module):
    """An exported text tower: row inputs, then its bank."""

    def __init__(self, tower: Any, layout: Layout, pooled: bool) -> None:
        super().__init__()
        self.tower, self.layout, self.pooled = tower, layout, pooled

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return (hidden_BWD, pooled_BE), or hidden_BWD alone, of inputs in the order of TOWER_INPUTS and the bank."""
        ids_BW, slot_B, scale_B = inputs[: len(TOWER_INPUTS)]
        with adapted(self.tower, self.layout, slot_B, scale_B, inputs[len(TOWER_INPUTS) :]):
            out = self.tower(ids_BW, output_hidden_states=True)
        hidden_BWD = out.hidden_states[-2].float()
        return (hidden_BWD, out.text_embeds.float()) if self.pooled else (hidden_BWD,)


class VaeDecoder(nn.Module):
    """Latents as the UNet sees them to pixels about [-1, 1], both float32."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents_BCHW: Tensor) -> Tensor:
        latents_BCHW = (latents_BCHW / self.vae.config.scaling_factor).to(self.vae.dtype)
        return self.vae.decode(latents_BCHW).sample.float()  # type: ignore[no-any-return]


class VaeEncoder(nn.Module):
    """Pixels in [-1, 1] to mean and standard deviation of latents as the UNet sees them, all float32."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        moments_BCHW = self.vae.encode(pixels_BCHW.to(self.vae.dtype)).latent_dist.parameters.float()
        mean_BCHW, log_variance_BCHW = moments_BCHW.chunk(2, 1)
        std_BCHW = (log_variance_BCHW.clamp(-30, 20) / 2).exp()  # diffusers' bounds
        return mean_BCHW * self.vae.config.scaling_factor, std_BCHW * self.vae.config.scaling_factor


def example_rows(
    unet: UNet2DConditionModel, tokens: int, batch: int = 2, latent: tuple[int, int] | None = None
) -> tuple[Tensor, ...]:
    """Return inputs of the right shapes, in the order of ROW_INPUTS: what a trace and a measurement run on.

    latent is the height and width of the latents (default the UNet's own).
    """
    config = unet.config
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    height, width = latent or (config.sample_size,) * 2
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(batch, config.in_channels, height, width, generator=generator),
        torch.linspace(900, 100, batch),
        torch.randn(batch, tokens, config.cross_attention_dim, generator=generator),
        torch.randn(batch, pooled, generator=generator),
        torch.tensor([[8.0 * height, 8 * width, 0, 0, 8 * height, 8 * width]] * batch),
        torch.zeros(batch, dtype=torch.int64),
        torch.ones(batch),
    )
