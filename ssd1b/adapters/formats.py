"""LoRA files of the wild into one form: PEFT, diffusers, and kohya with diffusers block names.

| format | keys | scale |
| --- | --- | --- |
| PEFT | base_model.model.PATH.lora_A.weight, .lora_B.weight | lora_alpha / r of adapter_config.json, its patterns |
| diffusers | [unet.]PATH.lora_A.weight, .lora.down.weight, .processor.to_q_lora.down.weight | PATH.alpha / r, or 1 |
| kohya | lora_unet_PATH_WITH_UNDERSCORES.lora_down.weight, .lora_up.weight, .alpha | alpha / r |

Nothing is silent: every key of the file is either part of a mapped layer or reported as dropped, with the reason.
"""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ssd1b.adapters.adapter import Adapter

# I and O widths of a layer, R rank

Shapes = Mapping[str, tuple[int, int]]
PARTS = re.compile(
    r"(?P<layer>.+?)(?P<processor>\.processor\.(?P<slot>to_q|to_k|to_v|to_out)_lora)?"
    r"\.(?P<part>lora_A|lora_B|lora_down|lora_up|lora\.down|lora\.up|down|up|alpha|dora_scale|lora_magnitude_vector"
    r"|hada_\w+|lokr_\w+)(\.default)?(\.weight)?"
)
DOWN, UP = ("lora_A", "lora_down", "lora.down", "down"), ("lora_B", "lora_up", "lora.up", "up")
PREFIXES = ("base_model.model.", "unet.", "lora_unet_")
TEXT_PREFIXES = ("lora_te", "text_encoder")


@dataclass(frozen=True)
class Report:
    """What became of the keys of a file."""

    layers: tuple[str, ...]
    """Layers that are mapped."""
    dropped: Mapping[str, str]
    """Key -> why it is not used."""

    def __str__(self) -> str:
        reasons = "; ".join(f"{count} {reason}" for reason, count in Counter(self.dropped.values()).most_common())
        return f"{len(self.layers)} layers mapped, {len(self.dropped)} keys dropped{': ' + reasons if reasons else ''}"


def read(path: Path, shapes: Shapes, name: str = "") -> tuple[Adapter, Report]:
    """Return the adapter of a safetensors file, or of a folder in PEFT layout, and what became of its keys.

    shapes are the layers that may be changed (`engine.layout.shapes`). The name defaults to that of the file.

    Raises:
        ValueError: not a safetensors file, an unreadable one, or one with no layer that fits.
    """
    file, config = locate(path)
    name = name or (path.stem if path.is_file() else path.name)
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key).float() for key in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{file} is not a readable safetensors file ({error}): fetch it again") from error
    layers, dropped = fold(tensors, shapes, config)
    report = Report(tuple(sorted(layers)), dropped)
    if not layers:
        raise ValueError(f"adapter {name!r} fits no layer of this model: {report}")
    return Adapter(name, layers), report


def locate(path: Path) -> tuple[Path, dict[str, Any]]:
    """Return the weights file and the PEFT config beside it, {} if there is none."""
    file = path / "adapter_model.safetensors" if path.is_dir() else path
    if file.suffix != ".safetensors":
        raise ValueError(f"{file} is not a .safetensors file: other formats can run code when read; convert it")
    if not file.is_file():
        raise ValueError(f"no adapter at {file}")
    beside = file.parent / "adapter_config.json"
    is_peft = file.name == "adapter_model.safetensors" and beside.exists()
    if not is_peft:
        return file, {}
    try:
        return file, json.loads(beside.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{beside} is not readable JSON ({error}): fetch the adapter again") from error


def fold(
    tensors: Mapping[str, Tensor], shapes: Shapes, config: Mapping[str, Any]
) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, str]]:
    """Return (layer path -> A and B with alpha / rank folded into B, dropped key -> reason)."""
    paths = {**{path: path for path in shapes}, **{path.replace(".", "_"): path for path in shapes}}
    found: dict[str, dict[str, str]] = defaultdict(dict)  # layer -> part -> key
    dropped: dict[str, str] = {}
    for key in tensors:
        match = PARTS.fullmatch(key)
        layer = layer_name(match) if match else key
        if key.startswith(TEXT_PREFIXES):
            dropped[key] = "change a text tower, which engines keep as it is"
        elif match is None:
            dropped[key] = "are not LoRA weights"
        elif layer not in paths:
            dropped[key] = "name a layer that this model does not adapt"
        else:
            part = match["part"]
            found[paths[layer]]["down" if part in DOWN else "up" if part in UP else part] = key
    layers = {}
    for path, keys in found.items():
        if reason := unfit(keys, tensors, shapes[path]):
            dropped.update(dict.fromkeys(keys.values(), reason))
            continue
        a_RI, b_OR = tensors[keys["down"]].flatten(1), tensors[keys["up"]].flatten(1)
        alpha = tensors[keys["alpha"]].item() if "alpha" in keys else None
        layers[path] = a_RI.T.contiguous(), (b_OR * scale(path, len(a_RI), alpha, config)).T.contiguous()
    return layers, dropped


def layer_name(match: re.Match[str]) -> str:
    """Return the layer that a key speaks of, without the format's prefix."""
    layer = match["layer"]
    for prefix in PREFIXES:
        layer = layer.removeprefix(prefix)
    if match["slot"]:  # before diffusers used PEFT the layer was named by its attention processor
        layer += ".to_out.0" if match["slot"] == "to_out" else f".{match['slot']}"
    return layer


def unfit(keys: Mapping[str, str], tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> str | None:
    """Return why the parts of a layer cannot be used, or None."""
    if unknown := sorted(set(keys) - {"down", "up", "alpha"}):
        kind = "DoRA" if {"dora_scale", "lora_magnitude_vector"} & set(unknown) else "LyCORIS"
        return f"belong to a {kind} layer, which is not a plain LoRA"
    if not {"down", "up"} <= set(keys):
        return "lack the other half of their pair"
    a, b = tensors[keys["down"]], tensors[keys["up"]]
    if any(math.prod(tensor.shape[2:]) != 1 for tensor in (a, b)):
        return "are a convolution's"
    if (a.shape[1], b.shape[0]) != shape or a.shape[0] != b.shape[1]:
        return "have another shape than this model's layer"
    return None


def scale(path: str, rank: int, alpha: float | None, config: Mapping[str, Any]) -> float:
    """Return what x A B is multiplied by: alpha / rank, PEFT's rank-stabilised variant alpha / sqrt(rank), or 1."""
    if alpha is None and config:
        patterns = config.get("alpha_pattern") or {}
        matching = [value for key, value in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", path)]
        alpha = matching[0] if matching else config.get("lora_alpha")
    if alpha is None:
        return 1.0
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
