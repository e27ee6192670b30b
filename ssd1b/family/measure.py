"""Measure UNets without memory for their weights: parameters, blocks and work, counted on the meta device."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch.utils.flop_counter import FlopCounterMode

from ssd1b.family.keep import Block, KeepMap, everything
from ssd1b.sizes import Size

TEXT_TOKENS = 77


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What a UNet is made of and what one call of it costs."""

    parameters: int
    transformer_blocks: int
    resnets: int
    size: str
    """Of the picture that the call is for, WIDTHxHEIGHT in pixels."""
    tflops: float
    """10^12 floating-point operations of one call: one row, 77 text tokens; a multiplication with its addition is 2."""

    @property
    def fp16_bytes(self) -> int:
        """Bytes of the weights in half precision."""
        return 2 * self.parameters


def measure(config: Mapping[str, Any], size: Size | None = None) -> Measure:
    """Measure the UNet of a diffusers config at a picture size; None: the size it was made for.

    Raises:
        ValueError: the size is not a multiple of what the UNet halves.
    """
    size = size or native_size(config)
    check_size(config, size)
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            unet(**example(unet, size))
    kinds = [type(module) for module in unet.modules()]
    return Measure(
        parameters=sum(parameter.numel() for parameter in unet.parameters()),
        transformer_blocks=kinds.count(BasicTransformerBlock),
        resnets=kinds.count(ResnetBlock2D),
        size=str(size),
        tflops=counter.get_total_flops() / 1e12,
    )


def native_size(config: Mapping[str, Any]) -> Size:
    """Return the picture size that a UNet was made for, pixels."""
    side = 8 * int(config["sample_size"])
    return Size(side, side)


def check_size(config: Mapping[str, Any], size: Size) -> None:
    """Raise ValueError unless the UNet can be called at the size."""
    step = 8 * 2 ** (len(config["down_block_types"]) - 1)
    if size.height % step or size.width % step:
        raise ValueError(f"size {size}: sides must be multiples of {step} pixels for this UNet")


def example(unet: UNet2DConditionModel, size: Size, rows: int = 1) -> dict[str, Any]:
    """Return arguments of a call of the UNet: noise for a picture size and a text of 77 tokens."""
    config = unet.config
    added = None
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        added = {"text_embeds": torch.randn(rows, pooled), "time_ids": torch.full((rows, 6), float(size.height))}
    return {
        "sample": torch.randn(rows, config.in_channels, size.latent.height, size.latent.width),
        "timestep": torch.full((rows,), 500.0),
        "encoder_hidden_states": torch.randn(rows, TEXT_TOKENS, config.cross_attention_dim),
        "added_cond_kwargs": added,
        "return_dict": False,
    }


def removed(full: KeepMap, kept: KeepMap) -> dict[str, str]:
    """Return what a keep map takes away, in words, by the place where it was."""
    gone: dict[str, str] = {}
    for part in ("down", "up"):
        left = {block.index: block for block in getattr(kept, part)}
        for block in getattr(full, part):
            words = block_removed(block, left.get(block.index))
            if words:
                gone[f"{part}_blocks.{block.index}"] = words
    if full.mid is not None and kept.mid != full.mid:
        count = len(full.mid)
        gone["mid_block"] = (
            "all of it" if kept.mid is None
            else f"{count - len(kept.mid)} of {count} transformer blocks" if kept.mid
            else f"attention of {count} transformer blocks, 1 of 2 resnets"
        )  # fmt: skip
    return gone


def block_removed(before: Block, after: Block | None) -> str:
    """Say what one block lost: whole layers, and transformer blocks of the layers that stay."""
    if after is None:
        return "all of it"
    left = {layer.index: layer for layer in after.layers}
    pairs = [
        (len(layer.blocks or ()), len(left[layer.index].blocks or ())) for layer in before.layers if layer.index in left
    ]
    blocks, kept = (sum(column) for column in zip(*pairs, strict=True))
    lost = len(before.layers) - len(left)
    words = [f"{lost} of {len(before.layers)} layers"] if lost else []
    words += [f"{blocks - kept} of {blocks} transformer blocks"] if kept < blocks else []
    return ", ".join(words)


def anatomy(config: Mapping[str, Any]) -> str:
    """Return a UNet's transformer blocks in one line: way down, mid block, way up, a number for each attention."""
    whole = everything(config)

    def way(blocks: tuple[Any, ...]) -> str:
        return " ".join(
            "+".join("-" if layer.blocks is None else str(len(layer.blocks)) for layer in block.layers)
            for block in blocks
        )

    mid = "none" if whole.mid is None else str(len(whole.mid)) if whole.mid else "resnet"
    return f"down {way(whole.down)} | mid {mid} | up {way(whole.up)}"
