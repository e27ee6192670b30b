"""What the soak test serves: versions of one shape that draw visibly unlike pictures, and a thousand adapters.

All versions are carved from teachers of one family, so that every adapter fits every version.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Generator, Tensor

from ssd1b import tracking
from ssd1b.engines.bundle import build
from ssd1b.family.carve import carve, keep_map
from ssd1b.models.files import load_pipeline, load_unet
from ssd1b.models.local import folder_of
from ssd1b.trials.load.stand import MODEL

TARGETS = ("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0")
"""Layers that an adapter changes: those through which the prompt acts."""
RANK = 2
SPREAD = 0.5
"""Of an adapter's matrices: pictures with and without it differ by far more than any rounding."""


@dataclass(frozen=True)
class Versions:
    """The registered versions of the model, by number as text, and where the bundle of each lies."""

    bundles: dict[str, Path]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.bundles)

    @property
    def unet(self) -> UNet2DConditionModel:
        """A UNet of the shape that all of them have."""
        return load_unet(str(next(iter(self.bundles.values()))))


def register_versions(teachers: Sequence[str], student: str, scratch: Path) -> Versions:
    """Carve, build and register a version from each teacher; the first is the champion. Some 20 s each.

    Raises:
        ValueError: no such teacher or student.
    """
    bundles: dict[str, Path] = {}
    for number, teacher in enumerate(teachers):
        unet, model = load_unet(teacher), scratch / f"model-{number}"
        carved = carve(unet, keep_map(unet.config, student))
        load_pipeline(str(folder_of(teacher)), unet=carved).save_pretrained(model)
        bundle = build(model, scratch / f"bundle-{number}", name=MODEL, base=teacher)
        kept = tracking.register(f"{MODEL}-bundle", bundle.folder, tags={"kind": "bundle"})
        tags = {"bundle": f"models:/{MODEL}-bundle/{kept}"}
        bundles[tracking.register(MODEL, bundle.folder, tags=tags)] = bundle.folder
    tracking.crown(MODEL, "champion", next(iter(bundles)))
    return Versions(bundles)


def adapter_of(unet: UNet2DConditionModel, seed: int) -> dict[str, Tensor]:
    """Return an adapter of chance, as diffusers names its matrices."""
    chance, weights = Generator().manual_seed(seed), dict[str, Tensor]()
    for path, layer in unet.named_modules():
        if path.endswith(TARGETS):
            outputs, inputs = layer.weight.shape
            a_RI = torch.randn(RANK, inputs, generator=chance) * inputs**-0.5
            b_OR = torch.randn(outputs, RANK, generator=chance) * SPREAD
            weights |= {f"unet.{path}.lora_A.weight": a_RI, f"unet.{path}.lora_B.weight": b_OR}
    return weights


def write_adapter(unet: UNet2DConditionModel, file: Path, seed: int) -> None:
    """Write it to a file, straight over what may be there, as anybody's script does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(adapter_of(unet, seed), file)


def register_adapter(name: str, folder: Path) -> None:
    """Register the adapter in a folder, as jobs.lora does; of an adapter that is there it is the next version."""
    tags = {"kind": "lora", "base": MODEL, "lora": name}
    tracking.register(registered_name(name), folder, alias="champion", tags=tags)


def withdraw_adapter(name: str) -> None:
    """Take a registered adapter off offer."""
    tracking.drop_alias(registered_name(name), "champion")


def registered_name(name: str) -> str:
    return f"{MODEL}-lora-{name}"
