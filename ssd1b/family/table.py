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

KOALA_1B_CHANGES: dict[str, Any] = {"layers_per_block": 1, "transformer_layers_per_block": (1, 2, 6)}
"""What KOALA-1B (arXiv 2312.04005) changes of SDXL: a layer less in every block, and six deep (ComfyUI)."""

KOALA_700M_CHANGES: dict[str, Any] = {
    "layers_per_block": 1,
    "transformer_layers_per_block": (1, 2, 5),
    "mid_block_type": None,
}
"""What KOALA-700M changes of SDXL: a layer less in every block, five deep, no mid block (ComfyUI)."""

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

SDXL_LINE: dict[str, dict[str, Any]] = {
    "sdxl": {},
    "ssd-1b": SSD1B_CHANGES,
    "segmind-vega": VEGA_CHANGES,
    "koala-1b": KOALA_1B_CHANGES,
    "koala-700m": KOALA_700M_CHANGES,
}
SD15_LINE: dict[str, dict[str, Any]] = {"sd-1.5": {}, "sd-small": SD_SMALL_CHANGES, "sd-tiny": SD_TINY_CHANGES}
NARROW = {"sd-tiny": {"block_out_channels": (32, 64, 64)}}
"""A nano twin with a level less needs the widths of those it keeps."""

FAMILY: dict[str, dict[str, Any]] = (
    {name: SDXL | changes for name, changes in SDXL_LINE.items()}
    | {name: SD15 | changes for name, changes in SD15_LINE.items()}
    | {f"nano-{name}": SDXL | NANO_CHANGES | changes for name, changes in SDXL_LINE.items()}
    | {f"nano-{name}": SD15 | NANO_SD15_CHANGES | changes | NARROW.get(name, {}) for name, changes in SD15_LINE.items()}
)
"""Every member by name, teachers before their students."""

PUBLISHED: dict[str, int] = {
    "sdxl": 2_567_463_684,
    "ssd-1b": 1_331_334_404,
    "segmind-vega": 745_225_604,
    "koala-1b": 1_161_184_324,
    "koala-700m": 782_822_724,
    "sd-1.5": 859_520_964,
    "sd-small": 579_384_964,
    "sd-tiny": 323_384_964,
}
"""Weights of the UNets. SDXL's and the SD-1.5 line's stand published to the unit; the others agree with what is."""


def teacher_of(name: str) -> str | None:
    """Return the member that a member was carved from; None for the teachers of the two lines."""
    prefix = "nano-" if name.startswith("nano-") else ""
    line = SDXL_LINE if name.removeprefix("nano-") in SDXL_LINE else SD15_LINE
    teacher = prefix + next(iter(line))
    return None if name == teacher else teacher


def member(name: str) -> dict[str, Any]:
    """Return the diffusers config of a member of the family.

    Raises:
        ValueError: no such member; the message names the nearest.
    """
    if name not in FAMILY:
        raise ValueError(f"no {name!r} in the family{nearest(name, FAMILY)}; members: {', '.join(FAMILY)}")
    return FAMILY[name]


def new_unet(name: str) -> UNet2DConditionModel:
    """Return an untrained UNet of the family, on the current default device (use torch.device("meta") to count).

    Raises:
        ValueError: no such member; the message names the nearest.
    """
    return UNet2DConditionModel(**member(name))
