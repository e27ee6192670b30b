"""The shapes of SDXL's two text towers, where no hub can be reached: OpenAI's CLIP ViT-L/14 and OpenCLIP's ViT-bigG/14.

From stabilityai/stable-diffusion-xl-base-1.0, text_encoder/config.json and text_encoder_2/config.json.
"""

from typing import Any

TOKENS = 77
WORDS = {"vocab_size": 49408, "max_position_embeddings": TOKENS}

CLIP_L: dict[str, Any] = WORDS | {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}
OPEN_CLIP_G: dict[str, Any] = WORDS | {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
CLIP_L_WEIGHTS, OPEN_CLIP_G_WEIGHTS = 123_060_480, 694_659_840
"""Weights of the two, published with them."""
