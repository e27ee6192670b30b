"""The engine bundle: the folder that travels through the registry to whoever serves.

It is the model's whole folder in diffusers layout (text towers, tokenizers, scheduler config, VAE and UNet, so that the
torch backend and plain diffusers open it too), the exported graphs, and `bundle.json`, which says what is in it and
what every file must hash to. Nothing of a bundle is used before all of it verifies.
"""

import hashlib
import importlib.util
import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from ssd1b.engines.bank import Bank, Layout
from ssd1b.engines.engine import Engine
from ssd1b.engines.graph import export_decoder, export_unet, layout_of
from ssd1b.engines.on_torch import TorchEngine
from ssd1b.models.files import load_unet, load_vae
from ssd1b.sampling.decode import Decoder
from ssd1b.sampling.prompts import Prompts
from ssd1b.sizes import Size

log = logging.getLogger(__name__)

MANIFEST = "bundle.json"
GRAPH = 2
"""Raise it when the exported graphs change, so that bundles of the old ones are not reused."""
UNET, DECODER = "unet.onnx", "vae_decoder.onnx"
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
BACKENDS = {"openvino": "openvino", "onnxruntime": "onnxruntime", "torch": "torch"}
"""Backend -> the package it needs; the first that is installed is the automatic choice."""
VERSIONS_OF = ("torch", "diffusers", "transformers", "onnx")


@dataclass(frozen=True)
class Bundle:
    """A verified bundle, or a plain diffusers folder, which only the torch backend opens."""

    folder: Path
    manifest: dict[str, Any]
    """What bundle.json says; for a plain folder only name, slots and rank."""
    backend: str
    """The backend that `engine` and `decode` run on."""

    @staticmethod
    def load(folder: Path, backend: str = "auto") -> "Bundle":
        """Verify a bundle and choose its backend; the log says which and why.

        Raises:
            ValueError: neither a bundle nor a diffusers folder, a file that does not verify, or no such backend.
        """
        if (folder / MANIFEST).exists():
            manifest = verified(folder)
            chosen, why = choose(backend)
        elif (folder / "model_index.json").exists():
            if backend not in ("auto", "torch"):
                raise ValueError(f"{folder} is a diffusers folder, {backend} needs an engine bundle: make one with "
                                 f"`python -m jobs.export nano --set model={folder}`")  # fmt: skip
            manifest, chosen, why = {"name": folder.name}, "torch", "a diffusers folder holds no exported graph"
        else:
            raise ValueError(f"{folder} holds neither {MANIFEST} nor model_index.json: give an engine bundle (made by "
                             f"jobs.export) or a model folder in diffusers layout")  # fmt: skip
        log.info("engine of %s: %s, because %s", manifest["name"], chosen, why)
        return Bundle(folder, manifest, chosen)

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(file["bytes"] for file in self.manifest["files"].values())

    @cached_property
    def prompts(self) -> Prompts:
        """The text towers."""
        return Prompts.load(self.folder)

    @property
    def prompt_tokens(self) -> int:
        """Longest prompt, markers not counted: one window where the graph is older than longer prompts."""
        any_length = self.backend == "torch" or self.manifest["inputs"]["text"][1] == "tokens"
        return self.prompts.longest if any_length else self.prompts.limit

    @cached_property
    def decode(self) -> Callable[[Tensor], Tensor]:
        """The VAE decoder: latents_BCHW to uint8 pictures (B, height, width, 3)."""
        if self.backend == "openvino":
            from ssd1b.engines.on_openvino import OpenVinoDecoder

            return OpenVinoDecoder(self.folder / DECODER)
        if self.backend == "onnxruntime":
            from ssd1b.engines.on_onnxruntime import OnnxRuntimeDecoder

            return OnnxRuntimeDecoder(self.folder / DECODER)
        return Decoder.load(self.folder)

    def engine(self, precision: str = "auto") -> Engine:
        """Return a new engine. precision "f32" forbids a backend to compute in less.

        Raises:
            ValueError: another precision.
        """
        if precision not in ("auto", "f32"):
            raise ValueError(f"precision {precision!r}: choose auto or f32")
        if self.backend == "torch":
            held = {key: self.manifest[key] for key in ("slots", "rank") if key in self.manifest}
            return TorchEngine(load_unet(str(self.folder)), **held)
        layout, slots, rank = Layout.of(shapes(self.manifest)), self.manifest["slots"], self.manifest["rank"]
        if self.backend == "openvino":
            from ssd1b.engines.on_openvino import OpenVinoEngine

            return OpenVinoEngine(
                self.folder / UNET, layout, slots=slots, rank=rank, precision="auto" if precision == "auto" else "f32"
            )
        from ssd1b.engines.on_onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(self.folder / UNET, layout, slots=slots, rank=rank)


def open_engine(folder: Path, backend: str = "auto", precision: str = "auto") -> Engine:
    """Return an engine of a bundle or of a diffusers folder (see `Bundle.load` and `Bundle.engine`)."""
    return Bundle.load(folder, backend).engine(precision)


def choose(backend: str, installed: Callable[[str], object] = importlib.util.find_spec) -> tuple[str, str]:
    """Return (backend, why). Importing openvino or onnxruntime waits until one is chosen.

    Raises:
        ValueError: no such backend, or its package is not installed.
    """
    if backend == "tensorrt":
        raise ValueError("TensorRT needs an NVIDIA GPU, `pip install 'ssd1b[gpu]'` and a bundle with plans for that "
                         "GPU, which this version does not build yet; use backend auto on this machine")  # fmt: skip
    if backend == "auto":
        missing: list[str] = []
        for name, package in BACKENDS.items():
            if installed(package):
                why = f"{' and '.join(missing)} not installed" if missing else "it is the fastest on a CPU"
                return name, why
            missing.append(name)
    if backend not in BACKENDS:
        raise ValueError(f"no backend {backend!r}: choose auto, {', '.join(BACKENDS)} or tensorrt")
    if not installed(BACKENDS[backend]):
        raise ValueError(f"backend {backend} is not installed: `pip install {BACKENDS[backend]}`, or choose auto")
    return backend, "it was asked for"


def build(model: Path, out: Path, *, name: str, base: str, slots: int = 9, rank: int = 8) -> Bundle:
    """Export a model folder in diffusers layout as a bundle at `out`, which appears whole or not at all.

    name is what the bundle calls itself, base the model it was made from (a registry uri, a folder name). slots counts
    slot 0; rank is the greatest adapter rank that a slot will hold.

    Raises:
        ValueError: the folder lacks a part of a pipeline, or slots or rank leave no room for an adapter.
    """
    if slots < 2 or rank < 1:
        raise ValueError(f"{slots} slots of rank {rank} hold no adapter: give at least 2 slots, of rank 1 or more")
    if missing := [part for part in PARTS if not (model / part).is_dir()]:
        raise ValueError(f"{model} lacks {', '.join(missing)}: give the folder of a whole SDXL-family pipeline")
    aside = out.with_name(f"{out.name}.tmp-{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for part in PARTS:
        shutil.copytree(model / part, aside / part)
    shutil.copy(model / "model_index.json", aside)
    unet = load_unet(str(aside))
    layout = layout_of(unet)
    tokens = Prompts.load(aside).limit + 2
    side = unet.config.sample_size
    export_unet(unet, Bank(layout, slots, rank), tokens, aside / UNET)
    export_decoder(load_vae(str(aside)), side, aside / DECODER)
    manifest: dict[str, Any] = {
        "name": name,
        "base": base,
        "slots": slots,
        "rank": rank,
        "size": str(Size(8 * side, 8 * side)),
        "inputs": {
            "latents": ["batch", unet.config.in_channels, side, side],
            "text": ["batch", "tokens", unet.config.cross_attention_dim],
            "time_ids": ["batch", 6],
        },
        "groups": [{"in": g.inside, "out": g.outside, "layers": list(g.paths)} for g in layout.groups],
        "versions": {package: version(package) for package in VERSIONS_OF},
        "files": {},
    }
    for path in sorted(path for path in aside.rglob("*") if path.is_file()):
        path.chmod(0o644)  # safetensors leaves 0600, which a shared file system's other users cannot read
        manifest["files"][str(path.relative_to(aside))] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    (aside / MANIFEST).write_text(json.dumps(manifest, indent=1))
    shutil.rmtree(out, ignore_errors=True)
    aside.rename(out)
    return Bundle.load(out)


def built(model: Path, root: Path, *, name: str, base: str, slots: int, rank: int) -> Bundle:
    """Return the bundle of a model under root, built only if the same one is not there yet (see `build`)."""
    made_from = hashlib.sha256(json.dumps([GRAPH, slots, rank]).encode())
    for part in PARTS:
        for path in sorted((model / part).glob("*")):
            made_from.update(f"{part}/{path.name} {sha256(path)}".encode())
    out = root / f"{name}-{made_from.hexdigest()[:12]}"
    if out.is_dir():
        return Bundle.load(out)
    return build(model, out, name=name, base=base, slots=slots, rank=rank)


def shapes(manifest: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return layer path -> (in, out) of a bundle."""
    return {path: (group["in"], group["out"]) for group in manifest["groups"] for path in group["layers"]}


def verified(folder: Path) -> dict[str, Any]:
    """Return bundle.json of a bundle whose every file is there, of its size and its sha256.

    Raises:
        ValueError: naming the first file that is not.
    """
    again = "fetch the bundle again, or make it again with jobs.export"
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        files = manifest["files"].items()
    except (json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{folder / MANIFEST} is unreadable ({error!r}): {again}") from error
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
