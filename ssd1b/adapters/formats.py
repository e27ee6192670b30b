"""LoRA files of the wild into one form: PEFT, diffusers, and kohya with diffusers or SGM block names.

| format | keys | scale |
| --- | --- | --- |
| PEFT | base_model.model.PATH.lora_A.weight, .lora_B.weight | lora_alpha / r of adapter_config.json, its patterns |
| diffusers | [unet.]PATH.lora_A.weight, .lora.down.weight, .processor.to_q_lora.down.weight; text_encoder[_2].PATH... | PATH.alpha / r; the header's lora_adapter_metadata; or 1 |
| kohya | lora_unet_PATH_WITH_UNDERSCORES.lora_down.weight, .lora_up.weight, .alpha; lora_te1_..., lora_te2_... | alpha / r |

Nothing is silent: every key of the file is either part of a mapped layer or reported as dropped, with the reason.
"""  # noqa: E501

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from ssd1b.adapters.adapter import Adapter, Shapes
from ssd1b.adapters.blockmap import BlockMap, MadeFor
from ssd1b.adapters.places import NO_ROOM, Places
from ssd1b.adapters.weights import factors, unfit

METADATA = "lora_adapter_metadata"
"""Where diffusers keeps PEFT's config of each part in the header of a file."""
PARTS = re.compile(
    r"(?P<layer>.+?)(?P<processor>\.processor\.(?P<slot>to_q|to_k|to_v|to_out)_lora)?"
    r"\.(?P<part>lora_A|lora_B|lora_down|lora_mid|lora_up|lora(?:_linear_layer)?\.down|lora(?:_linear_layer)?\.up|down|up"
    r"|alpha|dora_scale|lora_magnitude_vector|hada_\w+|lokr_\w+)(\.default)?(\.weight)?"
)
DOWN = ("lora_A", "lora_down", "lora.down", "lora_linear_layer.down", "down")
UP = ("lora_B", "lora_up", "lora.up", "lora_linear_layer.up", "up")


@dataclass(frozen=True)
class Report:
    """What became of the keys of a file."""

    layers: tuple[str, ...]
    """Layers that are mapped; those of the text towers after the name of their tower."""
    dropped: Mapping[str, str]
    """Key -> why it is not used."""
    made_for: str = "itself"
    """Whose blocks the file numbers: this model's ("itself"), or those of the "base" it was carved from."""

    def __str__(self) -> str:
        reasons = "; ".join(f"{count} {reason}" for reason, count in Counter(self.dropped.values()).most_common())
        base = ", made for the model that this one was carved from" if self.made_for == "base" else ""
        return (f"{len(self.layers)} layers mapped{base}, {len(self.dropped)} keys dropped"
                f"{': ' + reasons if reasons else ''}")  # fmt: skip


def read(
    path: Path,
    shapes: Shapes,
    name: str = "",
    *,
    text: Sequence[Shapes] = (),
    blocks: BlockMap | None = None,
    made_for: MadeFor = "auto",
) -> tuple[Adapter, Report]:
    """Return the adapter of a safetensors file, or of a folder in PEFT layout, and what became of its keys.

    shapes are the layers of the UNet that may be changed (`engine.layout.shapes`), text those of each text tower
    (`text.layouts`); without them text layers are dropped. blocks says what SGM names and the numbers of a base mean;
    without it only diffusers' names in the model's own numbering are known. The name defaults to that of the file.

    Raises:
        ValueError: not a safetensors file, an unreadable one, or one with no layer that fits.
    """
    file, config = locate(path)
    name = name or (path.stem if path.is_file() else path.name)
    try:
        content = file.read_bytes()  # not mapped: who cuts a mapped file short ends the process that reads it
        tensors = {key: tensor.float() for key, tensor in load(content).items()}
        told = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
        header = json.loads(told.get(METADATA, "{}"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} is not a readable safetensors file ({error}): fetch it again") from error
    places = Places(shapes, text, blocks)
    found, dropped = gather(tensors, places, made_for)
    layers: dict[str, dict[str, tuple[Tensor, Tensor]]] = {part: {} for part in places.parts}
    for (part, path_), keys in found.items():
        if reason := unfit(keys, tensors, places.parts[part][path_]):
            dropped.update(dict.fromkeys(keys.values(), reason))
            continue
        layers[part][path_] = factors(keys, tensors, scale(keys, tensors, config or component(header, part)))
    unet, *towers = layers.values()
    mapped = [path if part == "unet" else f"{part}.{path}" for part, found in layers.items() for path in sorted(found)]
    report = Report(tuple(mapped), dropped, places.made_for)
    if not mapped:
        raise ValueError(f"adapter {name!r} fits no layer of this model: {report}")
    return Adapter(name, unet, tuple(towers) if any(towers) else ()), report


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


def component(header: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Return PEFT's config of one part of a file that diffusers wrote; {} where it wrote none."""
    return {key.removeprefix(f"{part}."): value for key, value in header.items() if key.startswith(f"{part}.")}


def gather(
    tensors: Mapping[str, Tensor], places: Places, made_for: MadeFor
) -> tuple[dict[tuple[str, str], dict[str, str]], dict[str, str]]:
    """Return ((part of the model, layer path) -> role -> key, dropped key -> reason)."""
    matches = {key: PARTS.fullmatch(key) for key in tensors}
    names = {key: layer_name(match) for key, match in matches.items() if match}
    sizes = {names[key]: tensors[key].shape for key, match in matches.items() if match and match["part"] in DOWN}
    places.decide(names.values(), made_for)
    found: dict[tuple[str, str], dict[str, str]] = {}
    dropped: dict[str, str] = {}
    for key, match in matches.items():
        if match is None:
            dropped[key] = "are not LoRA weights"
            continue
        layer, part = names[key], match["part"]
        place = places.find(layer, sizes.get(layer, ()))
        if isinstance(place, str):
            kernel = math.prod(sizes.get(layer, ())[2:])
            dropped[key] = NO_ROOM if kernel > 1 and place in places.unknown else place
        else:
            role = "down" if part in DOWN else "up" if part in UP else part
            found.setdefault(place, {})[role] = key
    return found, dropped


def layer_name(match: re.Match[str]) -> str:
    """Return the layer that a key speaks of."""
    layer = match["layer"]
    if match["slot"]:  # before diffusers used PEFT the layer was named by its attention processor
        layer += ".to_out.0" if match["slot"] == "to_out" else f".{match['slot']}"
    return layer


def scale(keys: Mapping[str, str], tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> float:
    """Return what x A B is multiplied by: alpha / rank, PEFT's rank-stabilised variant alpha / sqrt(rank), or 1."""
    rank = tensors[keys["down"]].shape[0]
    alpha = tensors[keys["alpha"]].item() if "alpha" in keys else None
    if alpha is None and config:
        match = PARTS.fullmatch(keys["down"])
        assert match
        patterns = config.get("alpha_pattern") or {}
        matching = [value for key, value in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", layer_name(match))]
        alpha = matching[0] if matching else config.get("lora_alpha")
    if alpha is None:
        return 1.0
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
