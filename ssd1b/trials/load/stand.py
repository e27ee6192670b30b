"""What all contestants serve: one student as an engine bundle, and adapters of chance, in a storage root of its own.

The champion of a registry made for the purpose, so that our endpoint is started as anybody would start it.
"""

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Generator, Tensor

from ssd1b import tracking
from ssd1b.corpus.shipped import PATH as CORPUS
from ssd1b.engines.bundle import Bundle, build
from ssd1b.family.carve import carve, keep_map
from ssd1b.models.files import load_pipeline, load_unet
from ssd1b.models.local import folder_of

MODEL = "ssd1b-nano"
"""The name it is registered and served under."""
TARGETS = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_k", "attn2.to_v",
           "attn2.to_out.0")  # fmt: skip
"""Layers that an adapter changes: PEFT's and diffusers' usual choice for SDXL."""
RANK = 8
SPREAD = 0.1
"""Of an adapter's matrices: pictures change visibly and stay pictures."""


@dataclass(frozen=True, kw_only=True)
class Stand:
    """Where it lies."""

    home: Path
    """The storage root, with the registry."""
    bundle: Path
    adapters: Path
    """NAME/adapter_model.safetensors in diffusers' names, which all contestants read."""
    names: tuple[str, ...]
    sizes: tuple[str, ...]
    """Of pictures, WIDTHxHEIGHT."""


def prepare(scratch: Path, student: str, adapters: int, seed: int) -> Stand:
    """Make the bundle and so many adapters below a folder, and register them.

    student: a shape that the nano teacher is carved to, not trained, since time does not depend on it; or the folder of
    a model; or a registry uri, of which the bundle is made anew.

    Raises:
        ValueError: no such student.
    """
    folder = model(student, scratch)
    bundle = build(folder, scratch / "bundle", name=MODEL, base=student)
    names = tuple(f"style-{number:02d}" for number in range(1, adapters + 1))
    unet = load_unet(str(folder))
    for number, name in enumerate(names):
        write_adapter(unet, scratch / "adapters" / name, seed + number)
    sizes = tuple(map(str, bundle.sizes))
    stand = Stand(home=scratch / "home", bundle=bundle.folder, adapters=scratch / "adapters", names=names, sizes=sizes)
    with at_home(stand.home):
        register(stand, bundle)
    return stand


def model(student: str, scratch: Path) -> Path:
    """Return the folder of the student in diffusers layout."""
    if student.startswith("models:/"):
        return tracking.download(student)
    if Path(student).is_dir():
        return Path(student)
    teacher = folder_of("nano")
    unet = load_unet(str(teacher))
    carved = carve(unet, keep_map(unet.config, student))
    load_pipeline(str(teacher), unet=carved).save_pretrained(scratch / "student")
    return scratch / "student"


def write_adapter(unet: UNet2DConditionModel, folder: Path, seed: int) -> None:
    """Write an adapter of the attention layers, as diffusers names them."""
    chance, weights = Generator().manual_seed(seed), dict[str, Tensor]()
    for path, layer in unet.named_modules():
        if path.endswith(TARGETS):
            outputs, inputs = layer.weight.shape
            a_RI = torch.randn(RANK, inputs, generator=chance) * inputs**-0.5
            b_OR = torch.randn(outputs, RANK, generator=chance) * SPREAD
            weights |= {f"unet.{path}.lora_A.weight": a_RI, f"unet.{path}.lora_B.weight": b_OR}
    folder.mkdir(parents=True)
    save_file(weights, folder / "adapter_model.safetensors")


def register(stand: Stand, bundle: Bundle) -> None:
    """Make the bundle the champion, as jobs.export and jobs.promote do, and offer the adapters, as jobs.lora does."""
    kept = f"{MODEL}-bundle"
    version = tracking.register(kept, bundle.folder, tags={"kind": "bundle"})
    # the bundle is the model's folder too
    tracking.register(MODEL, bundle.folder, alias="champion", tags={"bundle": f"models:/{kept}/{version}"})
    for name in stand.names:
        tags = {"kind": "lora", "base": MODEL, "lora": name}
        tracking.register(f"{MODEL}-lora-{name}", stand.adapters / name, alias="champion", tags=tags)


@contextmanager
def at_home(home: Path) -> Iterator[None]:
    """Within it, this process keeps everything under another storage root, in no server's registry."""
    kept = {name: os.environ.pop(name, None) for name in ("SSD1B_HOME", "MLFLOW_TRACKING_URI")}
    home.mkdir(parents=True, exist_ok=True)
    os.environ["SSD1B_HOME"] = str(home)
    try:
        yield
    finally:
        del os.environ["SSD1B_HOME"]
        os.environ |= {name: value for name, value in kept.items() if value is not None}


def prompts(count: int, seed: int) -> Sequence[str]:
    """Return captions of the shipped corpus, of drawings that no training has seen."""
    table = pq.read_table(CORPUS, columns=["captions", "split"])
    found = sorted({row["captions"][0] for row in table.to_pylist() if row["split"] == "heldout"})
    return random.Random(seed).sample(found, min(count, len(found)))
