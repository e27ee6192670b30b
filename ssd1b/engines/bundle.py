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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ssd1b.adapters.adapter import Adapter
from ssd1b.adapters.blockmap import BlockMap
from ssd1b.adapters.formats import Report, read
from ssd1b.engines.bank import Layout
from ssd1b.engines.engine import Engine
from ssd1b.engines.manifest import GRAPH, MANIFEST, layout_in, list_files, sha256, verified
from ssd1b.engines.on_compiled import CompiledEngine
from ssd1b.engines.on_torch import TorchEngine
from ssd1b.engines.parts import DECODER, ENCODER, TOWERS, UNET, plain_name
from ssd1b.engines.text import AdaptedText, TorchText
from ssd1b.home import home
from ssd1b.models.files import load_unet, load_vae, unet_config
from ssd1b.models.lineage import read as read_lineage
from ssd1b.models.places import read_json
from ssd1b.sampling.decode import Decoder
from ssd1b.sampling.preview import FILE as PREVIEW
from ssd1b.sampling.prompts import Prompts
from ssd1b.sampling.vae import Vae
from ssd1b.sizes import NANO_BUCKETS, SDXL_BUCKETS, Size

if TYPE_CHECKING:
    from ssd1b.engines.on_onnx import BankedGraph, Graph
    from ssd1b.engines.tensorrt.bundled import Rise

log = logging.getLogger(__name__)

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
STORY = "lineage.json"
"""Where the weights come from; an adapter made for the model it was carved from is read by it."""
VAE_FACTOR = 8
"""Pixels to a latent position, each way."""
ROOM = {"slots": 9, "rank": 8}
"""For adapters, unless a bundle says otherwise."""
BACKENDS = {"compiled": "torch", "openvino": "openvino", "onnxruntime": "onnxruntime", "torch": "torch"}
"""Backend -> the package it needs; the first that is installed is the automatic choice; compiled wants a GPU too."""
VERSIONS_OF = ("torch", "diffusers", "transformers", "onnx")


@dataclass(frozen=True)
class Bundle:
    """A verified bundle, or a plain diffusers folder, which only the torch backend opens."""

    folder: Path
    manifest: dict[str, Any]
    """What bundle.json says; for a plain folder only name, slots and rank."""
    backend: str
    """The backend that `engine` and `decode` run on."""
    tensorrt: bool = False
    """Whether UNet, text towers and decoder change over to TensorRT once there are plans for the GPU at hand."""

    @staticmethod
    def load(folder: Path, backend: str = "auto") -> "Bundle":
        """Verify a bundle and choose its backend; the log says which and why.

        Raises:
            ValueError: neither a bundle nor a diffusers folder, a file that does not verify, or no such backend.
        """
        tensorrt = backend == "tensorrt" and (folder / MANIFEST).exists()
        if (folder / MANIFEST).exists():
            manifest = verified(folder)
            chosen, why = until_tensorrt() if tensorrt else choose(backend)
        elif (folder / "model_index.json").exists():
            if backend not in ("auto", "torch"):
                raise ValueError(f"{folder} is a diffusers folder, {backend} needs an engine bundle: make one with "
                                 f"`python -m jobs.export nano --set model={folder}`")  # fmt: skip
            manifest, chosen, why = {"name": folder.name}, "torch", "a diffusers folder holds no exported graph"
        else:
            raise ValueError(f"{folder} holds neither {MANIFEST} nor model_index.json: give an engine bundle (made by "
                             f"jobs.export) or a model folder in diffusers layout")  # fmt: skip
        log.info("engine of %s: %s, because %s", manifest["name"], chosen, why)
        return Bundle(folder, manifest, chosen, tensorrt)

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The sizes to ask for: the buckets that the model was trained at. Engines take any."""
        side = unet_config(self.folder)["sample_size"] * VAE_FACTOR
        known = (buckets for buckets in (NANO_BUCKETS, SDXL_BUCKETS) if Size(side, side) in buckets)
        return next(known, (Size(side, side),))

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(file["bytes"] for file in self.manifest["files"].values())

    @cached_property
    def prompts(self) -> Prompts:
        """Tokenizers and text towers; `text` runs the towers."""
        return Prompts.through(self.folder, self.text)

    @property
    def prompt_tokens(self) -> int:
        """Longest prompt, markers not counted."""
        return self.prompts.longest

    @cached_property
    def text(self) -> AdaptedText:
        """The text towers, float32 on every backend: what they round, every step of a picture repeats."""
        if self.in_torch:
            towers = [tower.to(self.device) for tower in Prompts.load(self.folder).towers]
            text = TorchText(towers, **self.room)
            return self.rise.text(text) if self.rise else text
        from ssd1b.engines.on_onnx import OnnxText

        layouts = [layout_in(part) for part in self.manifest["lora"]["text"]]
        graphs = [self.banked(name, layout, "f32", self.room) for name, layout in zip(TOWERS, layouts, strict=True)]
        configs = [read_json(self.folder / Path(name).stem / "config.json") for name in TOWERS]
        return OnnxText(
            graphs,
            window=configs[0]["max_position_embeddings"],
            widths=[config["hidden_size"] for config in configs],
            pooled=configs[-1]["projection_dim"],
        )

    @cached_property
    def decode(self) -> Callable[[Tensor], Tensor]:
        """The VAE decoder: latents_BCHW to uint8 pictures (B, height, width, 3)."""
        if self.in_torch:
            return self.rise.decoder(self.torch_decoder) if self.rise else self.torch_decoder()
        from ssd1b.engines.on_onnx import OnnxDecoder

        return OnnxDecoder(self.graph(DECODER, "f32"))  # bfloat16's eight bits would show as banding in flat colours

    def torch_decoder(self) -> Decoder:
        """Return the decoder in torch."""
        return Decoder(load_vae(str(self.folder)).to(self.device), self.dtype())

    @cached_property
    def encode(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """The VAE encoder: pixels_BCHW in [-1, 1] to mean and standard deviation of the scaled latents."""
        if self.in_torch:
            return Vae(load_vae(str(self.folder)).to(self.device), self.dtype()).posterior
        from ssd1b.engines.on_onnx import OnnxEncoder

        return OnnxEncoder(self.graph(ENCODER, "f32"))

    @cached_property
    def blocks(self) -> BlockMap:
        """What the names of layers in adapters' files mean here."""
        story = read_lineage(self.folder)
        return BlockMap.of(unet_config(self.folder), story.keep_map if story is not None else None)

    def read_adapter(self, path: Path, engine: Engine, name: str = "") -> tuple[Adapter, Report]:
        """Return the adapter of a file for an engine of this bundle and for its text towers, and what became of it.

        Raises:
            ValueError: see `ssd1b.adapters.formats.read`.
        """
        text = [layout.shapes for layout in self.text.layouts]
        return read(path, engine.layout.shapes, name, text=text, blocks=self.blocks)

    def engine(self, precision: str = "auto", *, slots: int | None = None, rank: int | None = None) -> Engine:
        """Return a new engine. precision "f32" forbids a backend to compute in less.

        slots and rank are the room for adapters; by default what the bundle says.

        Raises:
            ValueError: another precision, or no room for an adapter.
        """
        if precision not in ("auto", "f32"):
            raise ValueError(f"precision {precision!r}: choose auto or f32")
        room = self.room | {key: value for key, value in (("slots", slots), ("rank", rank)) if value is not None}
        check_room(**room)
        first = partial(self.direct, precision, room)
        return self.rise.unet(first, room) if self.rise else first()

    def direct(self, precision: str, room: Mapping[str, int]) -> Engine:
        """Return a new engine on the chosen backend."""
        if self.in_torch:
            kind = CompiledEngine if self.backend == "compiled" else TorchEngine
            unet = load_unet(str(self.folder), self.dtype(precision)).to(self.device)
            convolutions = bool(self.manifest.get("lora", {}).get("convolutions"))
            return kind(unet, slots=room["slots"], rank=room["rank"], convolutions=convolutions)
        from ssd1b.engines.on_onnx import OnnxEngine

        banked = self.banked(UNET, layout_in(self.manifest["lora"]["unet"]), precision, room)
        return OnnxEngine(f"{self.backend} {banked.adapted.precision}", banked)

    @cached_property
    def rise(self) -> "Rise | None":
        """What takes UNet, text and decoder to TensorRT, None unless that was asked for.

        Raises:
            ValueError: no GPU here, or no library for it.
        """
        if not self.tensorrt:
            return None
        from ssd1b.engines.tensorrt.bundled import Plans, Rise

        return Rise(Plans(self.folder, self.manifest, home() / "plans", self.sizes))

    @property
    def in_torch(self) -> bool:
        """Whether the folder's own weights run, instead of its graphs."""
        return self.backend in ("torch", "compiled")

    @property
    def device(self) -> torch.device:
        """Where torch runs them."""
        return torch.device("cuda" if self.backend == "compiled" else "cpu")

    def dtype(self, precision: str = "auto") -> torch.dtype:
        """Return what torch runs UNet and VAE in."""
        return torch.float16 if self.backend == "compiled" and precision == "auto" else torch.float32

    @property
    def room(self) -> dict[str, int]:
        """Slots and rank for adapters."""
        return {key: self.manifest.get(key, default) for key, default in ROOM.items()}

    def banked(self, name: str, layout: Layout, precision: str, room: Mapping[str, int]) -> "BankedGraph":
        """Open a graph that has a bank, and its twin without."""
        from ssd1b.engines.on_onnx import BankedGraph

        dtype = {"f32": torch.float32, "f16": torch.float16}[self.manifest["precision"]]
        return BankedGraph(
            self.graph(name, precision),
            self.graph(plain_name(name), precision),
            layout,
            slots=room["slots"],
            rank=room["rank"],
            dtype=dtype,
        )

    def graph(self, name: str, precision: str) -> "Graph":
        """Open a graph on the chosen backend."""
        if self.backend == "openvino":
            from ssd1b.engines.on_openvino import OpenVinoGraph

            steady = name in (UNET, plain_name(UNET))
            return OpenVinoGraph(self.folder / name, "auto" if precision == "auto" else "f32", steady)
        from ssd1b.engines.on_onnxruntime import OnnxRuntimeGraph

        return OnnxRuntimeGraph(self.folder / name)


def open_engine(folder: Path, backend: str = "auto", precision: str = "auto") -> Engine:
    """Return an engine of a bundle or of a diffusers folder (see `Bundle.load` and `Bundle.engine`)."""
    return Bundle.load(folder, backend).engine(precision)


def choose(
    backend: str,
    installed: Callable[[str], object] = importlib.util.find_spec,
    gpu: Callable[[], bool] = torch.cuda.is_available,
) -> tuple[str, str]:
    """Return (backend, why). Importing openvino or onnxruntime waits until one is chosen.

    Raises:
        ValueError: no such backend, or its package is not installed.
    """
    if backend == "auto":
        missing: list[str] = []
        for name, package in BACKENDS.items():
            if name == "compiled":
                if gpu():
                    return name, "torch sees a GPU"
                continue
            if installed(package):
                why = f"{' and '.join(missing)} not installed" if missing else "it is the fastest on a CPU"
                return name, why
            missing.append(name)
    if backend not in BACKENDS:
        raise ValueError(f"no backend {backend!r}: choose auto, {', '.join(BACKENDS)} or, with a bundle, tensorrt")
    if backend == "compiled" and not gpu():
        raise ValueError("backend compiled captures CUDA graphs and torch sees no GPU here: choose auto")
    if not installed(BACKENDS[backend]):
        raise ValueError(f"backend {backend} is not installed: `pip install {BACKENDS[backend]}`, or choose auto")
    return backend, "it was asked for"


def until_tensorrt() -> tuple[str, str]:
    """Return what serves until there are plans for this GPU.

    Raises:
        ValueError: no TensorRT for the GPU of this machine, or no GPU; the message says what is missing.
    """
    from ssd1b.engines.tensorrt.options import Target

    library = Target.here().open()
    return "compiled", f"it serves until {library.name} {library.version} has plans for this GPU"


def build(
    model: Path,
    out: Path,
    *,
    name: str,
    base: str,
    slots: int = ROOM["slots"],
    rank: int = ROOM["rank"],
    precision: str = "f32",
    convolutions: bool = False,
) -> Bundle:
    """Export a model folder in diffusers layout as a bundle at `out`, which appears whole or not at all.

    name is what the bundle calls itself, base the model it was made from (a registry uri, a folder name). slots counts
    slot 0; rank is the greatest adapter rank that a slot will hold. precision is that of the graphs, f32 or f16;
    convolutions lets adapters change the UNet's convolutions too, which costs a little where none does.

    Raises:
        ValueError: the folder lacks a part of a pipeline, slots or rank leave no room for an adapter, another
            precision, or a model that overflows in it.
    """
    check_room(slots, rank)
    if precision not in ("f32", "f16"):
        raise ValueError(f"precision {precision!r}: graphs are exported in f32 or f16")
    if missing := [part for part in PARTS if not (model / part).is_dir()]:
        raise ValueError(f"{model} lacks {', '.join(missing)}: give the folder of a whole SDXL-family pipeline")
    aside = out.with_name(f"{out.name}.tmp-{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        for part in PARTS:
            shutil.copytree(model / part, aside / part)
        for file in ("model_index.json", STORY):
            if (model / file).is_file():
                shutil.copy(model / file, aside)
        if not (aside / PREVIEW).is_file():
            from ssd1b.pretraining.colours import preview_of  # reads the corpus, which needs pyarrow

            preview_of(load_vae(str(aside))).save(aside)
        from ssd1b.engines.exporting import export  # needs onnx, which whoever only runs torch may lack

        described = export(aside, precision, convolutions)
        versions = {package: version(package) for package in VERSIONS_OF}
        manifest = {"name": name, "base": base, "slots": slots, "rank": rank, **described, "plans": [],
                    "versions": versions, "files": list_files(aside)}  # fmt: skip
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1))
        shutil.rmtree(out, ignore_errors=True)
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Bundle.load(out)


def built(
    model: Path,
    root: Path,
    *,
    name: str,
    base: str,
    slots: int,
    rank: int,
    precision: str = "f32",
    convolutions: bool = False,
) -> Bundle:
    """Return the bundle of a model under root, built only if the same one is not there yet (see `build`)."""
    made_from = hashlib.sha256(json.dumps([GRAPH, slots, rank, precision, convolutions]).encode())
    for part in PARTS:
        for path in sorted((model / part).glob("*")):
            made_from.update(f"{part}/{path.name} {sha256(path)}".encode())
    out = root / f"{name}-{made_from.hexdigest()[:12]}"
    if out.is_dir():
        return Bundle.load(out)
    return build(
        model, out, name=name, base=base, slots=slots, rank=rank, precision=precision, convolutions=convolutions
    )


def check_room(slots: int, rank: int) -> None:
    """Raise ValueError where no adapter could be held."""
    if slots < 2 or rank < 1:
        raise ValueError(f"{slots} slots of rank {rank} hold no adapter: give at least 2 slots, of rank 1 or more")
