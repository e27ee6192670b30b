"""A registry with the shipped nano model as champion, and adapters made up at random in PEFT layout."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from ssd1b import tracking
from ssd1b.models.files import NANO, load_unet

TARGETS = ("attn1.to_q", "attn1.to_v", "attn2.to_k", "attn2.to_out.0")


def register_nano(name: str = "ssd1b-nano") -> str:
    """Register the shipped teacher as the champion; return its version."""
    return tracking.register(name, NANO, run_id=None, alias="champion", tags={})


def adapter_folder(folder: Path, rank: int = 4, seed: int = 0) -> Path:
    """Write a random adapter of the nano UNet's attention layers in PEFT layout."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for path, layer in load_unet("nano").named_modules():
        if path.endswith(TARGETS):
            out, inside = layer.weight.shape
            weights[f"base_model.model.{path}.lora_A.weight"] = torch.randn(rank, inside, generator=generator) / 8
            weights[f"base_model.model.{path}.lora_B.weight"] = torch.randn(out, rank, generator=generator) / 8
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": [*TARGETS]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def register_lora(name: str, folder: Path, model: str = "ssd1b-nano") -> str:
    """Register an adapter at its @champion, as jobs.lora does; return its version."""
    tags = {"kind": "lora", "base": model, "lora": name}
    return tracking.register(f"{model}-lora-{name}", folder, run_id=None, alias="champion", tags=tags)
