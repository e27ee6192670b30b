"""`bundle.json`: what an engine bundle says of itself, and the check that it is so.

| key | what |
| --- | --- |
| name, base | what the bundle calls itself; the model it was made from |
| graph | version of the graphs, see GRAPH |
| architecture | member of the family (null for another), parameters of the UNet, transformer blocks, widths |
| precision | f32 or f16: weights and bank of the graphs; row inputs and outputs are float32 in both |
| inputs | of the UNet's graph, by name, in order: sizes, dynamic ones by the name of their axis |
| graphs | the other graphs alike, with their outputs |
| slots, rank | room for adapters that an engine opens with, unless it is asked for more or less |
| lora | layers that adapters may change: `unet` and one entry of `text` for each tower, in groups of one shape |
| numerics | how far the graphs are from float32 in torch |
| plans | compiled engines for one GPU architecture each; empty here, entries are `ssd1b.engines.tensorrt`'s |
| versions | of the libraries that wrote it |
| files | every file of the bundle but this one, with its size and sha256 |
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from diffusers import UNet2DConditionModel

from ssd1b.adapters.adapter import LayerShape
from ssd1b.engines.bank import Layout
from ssd1b.family.keep import everything
from ssd1b.family.table import FAMILY

MANIFEST = "bundle.json"
GRAPH = 4
"""Raise it when the exported graphs change, so that bundles of the old ones are not reused."""


def architecture(unet: UNet2DConditionModel) -> dict[str, Any]:
    """Return what a bundle says of its UNet."""
    anatomy, widths = everything(unet.config), list(unet.config.block_out_channels)
    same = (
        name
        for name, config in FAMILY.items()
        if (everything(config), list(config["block_out_channels"])) == (anatomy, widths)
    )
    return {
        "family": next(same, None),
        "parameters": unet.num_parameters(),
        "transformer_blocks": anatomy.depth,
        "widths": widths,
    }


def interface(path: Path) -> dict[str, dict[str, list[int | str]]]:
    """Return inputs and outputs of a graph: name -> sizes, the dynamic ones by name."""
    import onnx  # whoever only runs torch may lack it

    graph = onnx.load(path, load_external_data=False).graph
    return {
        side: {
            value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
            for value in values
        }
        for side, values in (("inputs", graph.input), ("outputs", graph.output))
    }


def groups(layout: Layout) -> list[dict[str, Any]]:
    """Return a layout as JSON."""
    return [{"shape": list(group.shape), "layers": list(group.paths)} for group in layout.groups]


def layout_in(groups: list[dict[str, Any]]) -> Layout:
    """Return the layout that `groups` wrote."""
    return Layout.of({path: LayerShape(*group["shape"]) for group in groups for path in group["layers"]})


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return every file of a folder with its size and sha256, and let other users read it."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        path.chmod(0o644)  # safetensors leaves 0600, which a shared file system's other users cannot read
        found[str(path.relative_to(folder))] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    return found


def verified(folder: Path) -> dict[str, Any]:
    """Return bundle.json of a bundle whose every file is there, of its size and its sha256.

    Raises:
        ValueError: naming the first file that is not, or graphs of another version.
    """
    again = "fetch the bundle again, or make it again with jobs.export"
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        files = manifest["files"].items()
    except (json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{folder / MANIFEST} is unreadable ({error!r}): {again}") from error
    if (version := manifest.get("graph")) != GRAPH:
        raise ValueError(f"bundle {folder} holds graphs of version {version}, this is {GRAPH}: make it again with "
                         f"jobs.export")  # fmt: skip
    for name, expected in files:
        path = folder / name
        if not path.is_file():
            raise ValueError(f"bundle {folder} lacks {name}: {again}")
        if path.stat().st_size != expected["bytes"] or sha256(path) != expected["sha256"]:
            raise ValueError(f"bundle {folder}: {name} is not the file that was exported: {again}")
    return manifest


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
