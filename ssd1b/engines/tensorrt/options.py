"""What a plan is asked to be: for which GPU, of which graph, for which shapes and how. Together they are its key."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ssd1b.engines.tensorrt.inputs import file_hash, graph_hash, inputs_of
from ssd1b.engines.tensorrt.library import Library, capability_here, open_library
from ssd1b.engines.tensorrt.profiles import Profile, Serving, profiles_for


@dataclass(frozen=True)
class Target:
    """The GPU that a plan is for."""

    capability: str
    """As "sm80": 8.0 is an A100, 8.6 and 8.9 are consumer GPUs, 9.0 is an H100 or H200."""
    library: str = "auto"

    def __post_init__(self) -> None:
        if not (self.capability.startswith("sm") and self.capability[2:].isdigit()):
            raise ValueError(f"{self.capability!r} is not a GPU architecture: write it as sm80")

    @staticmethod
    def here(library: str = "auto") -> "Target":
        """Return the GPU of this machine.

        Raises:
            ValueError: there is none.
        """
        capability = capability_here()
        if capability is None:
            raise ValueError("no CUDA device here: name the architecture to build for, for example sm80")
        return Target(capability, library)

    def open(self) -> Library:
        """Return the library that builds for it (see `open_library`)."""
        return open_library(self.library, self.capability)


@dataclass(frozen=True)
class Quantise:
    """Eight-bit weights and activations through ModelOpt. Off unless asked for; see quantise.py."""

    mode: Literal["fp8", "int8"]
    calibration: Path
    """An .npz of arrays by input name: what the graph met in real use."""


@dataclass(frozen=True)
class Options:
    """How to build. Types are not among them: every tensor has the type that the graph gives it."""

    serving: Serving = dataclasses.field(default_factory=Serving)
    level: int = 3
    """Builder optimisation level, 0 (quick to build) to 5 (quick to run)."""
    workspace_bytes: int | None = None
    """The most scratch memory of one layer; None is all that the GPU has."""
    quantise: Quantise | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.level <= 5:
            raise ValueError(f"builder optimisation level {self.level}: choose 0 to 5")


@dataclass(frozen=True)
class Job:
    """One plan to have: a graph, its profiles, and the key that tells it from any other."""

    name: str
    graph: Path
    profiles: tuple[Profile, ...]
    library: Library
    capability: str
    options: Options
    parts: Mapping[str, Any]
    """What the key is made of, readable: it stands in the plan's manifest."""

    @staticmethod
    def of(name: str, graph: Path, target: Target, options: Options) -> "Job":
        """Return the job of a graph.

        Raises:
            ValueError: see `open_library`, `inputs_of`, `profiles_for` and `Profile.shapes`.
        """
        library = target.open()
        inputs = {key: value.axes for key, value in inputs_of(graph).items()}
        profiles = profiles_for(name, inputs, options.serving, per_size=library.tunes)
        for profile in profiles:
            profile.shapes(inputs)
        parts = {
            "capability": target.capability,
            "gpu": torch.cuda.get_device_name() if library.tunes else None,
            "library": library.name,
            "version": library.version,
            "graph": graph_hash(graph),
            "profiles": [{axis: str(span) for axis, span in profile.ranges} for profile in profiles],
            "level": options.level,
            "workspace_bytes": options.workspace_bytes,
            "quantise": options.quantise and [options.quantise.mode, file_hash(options.quantise.calibration)],
        }
        return Job(name, graph, profiles, library, target.capability, options, parts)

    @property
    def key(self) -> str:
        """Name of the plan: a hash of all that it depends on.

        The GPU's model is among them where kernels were timed on it: TensorRT advises against other models, even of the
        same architecture.
        """
        return hashlib.sha256(json.dumps(self.parts, sort_keys=True).encode()).hexdigest()[:24]
