"""The family: one table of UNet architectures in diffusers' terms, full size and nano."""

from typing import Any

from diffusers import UNet2DConditionModel

from ssd1b.command import nearest

SDXL: dict[str, Any] = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
"""SDXL base (kohya-ss/sd-scripts, library/sdxl_model_util.py)."""

SSD1B_CHANGES: dict[str, Any] = {
    "mid_block_type": "UNetMidBlock2D",
    "transformer_layers_per_block": [[1], [2, 2], [4, 4]],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
}
"""What SSD-1B changes of SDXL: 36 of 70 transformer blocks and one resnet go (siliconflow/onediff issue 570)."""

NANO_CHANGES: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (32, 64, 64),
    "attention_head_dim": (1, 2, 2),
    "cross_attention_dim": 128,
    "addition_time_embed_dim": 16,
    "projection_class_embeddings_input_dim": 6 * 16 + 128,
    "norm_num_groups": 16,
}
"""What the nano family changes: widths only."""

VEGA_CHANGES: dict[str, Any] = {"mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": (1, 1, 2)}
"""What Segmind-Vega changes of SDXL: as SSD-1B and shallower, alike down and up (ComfyUI, model_detection.py)."""

SD15: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
"""Stable Diffusion 1.5."""

SD_SMALL_CHANGES: dict[str, Any] = {"layers_per_block": 1}
"""What SD-Small changes of SD-1.5: one layer less in every block (Nota's BK-SDM-Base; segmind/distill-sd)."""

SD_TINY_CHANGES: dict[str, Any] = SD_SMALL_CHANGES | {
    "down_block_types": ("CrossAttnDownBlock2D",) * 3,
    "mid_block_type": None,
    "up_block_types": ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (320, 640, 1280),
}
"""What SD-Tiny changes of SD-1.5: the innermost level and the mid block go too (Nota's BK-SDM-Tiny)."""

NANO_SD15_CHANGES: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (32, 64, 64, 64),
    "attention_head_dim": 2,
    "cross_attention_dim": 64,
    "norm_num_groups": 16,
}
"""What the nano twins of the SD-1.5 line change: widths only."""

FAMILY: dict[str, dict[str, Any]] = {
    "sdxl": SDXL,
    "ssd-1b": SDXL | SSD1B_CHANGES,
    "segmind-vega": SDXL | VEGA_CHANGES,
    "sd-1.5": SD15,
    "sd-small": SD15 | SD_SMALL_CHANGES,
    "sd-tiny": SD15 | SD_TINY_CHANGES,
    "nano-sdxl": SDXL | NANO_CHANGES,
    "nano-ssd-1b": SDXL | NANO_CHANGES | SSD1B_CHANGES,
    "nano-segmind-vega": SDXL | NANO_CHANGES | VEGA_CHANGES,
    "nano-sd-1.5": SD15 | NANO_SD15_CHANGES,
    "nano-sd-small": SD15 | NANO_SD15_CHANGES | SD_SMALL_CHANGES,
    "nano-sd-tiny": SD15 | NANO_SD15_CHANGES | SD_TINY_CHANGES | {"block_out_channels": (32, 64, 64)},
}


def new_unet(name: str) -> UNet2DConditionModel:
    """Return an untrained UNet of the family, on the current default device (use torch.device("meta") to count).

    Raises:
        ValueError: no such member; the message names the nearest.
    """
    if name not in FAMILY:
        raise ValueError(f"no {name!r} in the family{nearest(name, FAMILY)}; members: {', '.join(FAMILY)}")
    return UNet2DConditionModel(**FAMILY[name])
