"""All graphs of a bundle, written beside the model they come from, and what its manifest says of them."""

from pathlib import Path
from typing import Any

from ssd1b.engines.graph import layout_of, tower_layout
from ssd1b.engines.half import halved, halved_vae
from ssd1b.engines.manifest import GRAPH, architecture, groups, interface
from ssd1b.engines.numerics import unet_error, vae_error
from ssd1b.engines.onnx_files import export_decoder, export_encoder, export_tower, export_unet
from ssd1b.engines.parts import DECODER, ENCODER, TOWERS, UNET, plain_name
from ssd1b.models.files import load_unet, load_vae
from ssd1b.sampling.prompts import Prompts


def export(folder: Path, precision: str, convolutions: bool) -> dict[str, Any]:
    """Write the graphs of a model folder in diffusers layout into it; return their part of the manifest.

    Raises:
        ValueError: the model overflows in that precision.
    """
    half = precision == "f16"
    unet, vae, prompts = load_unet(str(folder)), load_vae(str(folder)), Prompts.load(folder)
    tokens, layout = prompts.limit + 2, layout_of(unet, convolutions)
    layouts = [tower_layout(tower) for tower in prompts.towers]
    exported, exported_vae = (halved(unet), halved_vae(vae)) if half else (unet, vae)
    export_unet(exported, layout, tokens, folder / UNET)
    for i, (name, tower) in enumerate(zip(TOWERS, prompts.towers, strict=True)):
        export_tower(halved(tower) if half else tower, layouts[i], i == 1, tokens, folder / name)
    export_decoder(exported_vae, folder / DECODER)
    export_encoder(exported_vae, folder / ENCODER)
    others = {name: interface(folder / name) for name in (*TOWERS, DECODER, ENCODER)}
    return {
        "graph": GRAPH,
        "architecture": architecture(unet),
        "precision": precision,
        "inputs": interface(folder / UNET)["inputs"],
        "graphs": others,
        "lora": {
            "convolutions": convolutions,
            "unet": groups(layout),
            "text": [groups(tower) for tower in layouts],
        },
        "numerics": {
            "unet": unet_error(unet, exported, folder / plain_name(UNET), tokens),
            **vae_error(vae, exported_vae, folder / DECODER, folder / ENCODER),
        },
    }
