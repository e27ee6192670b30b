"""The one door to `tensorrt` (10.x, 11.x) and `tensorrt_rtx`: which is installed, its targets, where APIs differ.

TensorRT times kernels on the GPU it builds for. TensorRT-RTX builds without a GPU for any it knows, and compiles the
kernels where the plan first runs. Full TensorRT cannot be installed where this was written: what is said of it here is
read from its documentation, and was never run.
"""

import importlib
import logging
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

log = logging.getLogger(__name__)

NAMES = ("tensorrt", "tensorrt_rtx")
INSTALL = {"tensorrt": "pip install 'ssd1b[gpu]'", "tensorrt_rtx": "pip install 'ssd1b[trt-rtx]'"}
OLDEST = {"tensorrt": (10, 0), "tensorrt_rtx": (1, 2)}
"""10.0 is the first with strong typing and user-managed memory together; 1.2 the first that captures CUDA graphs."""


@dataclass(frozen=True)
class Library:
    """One installed library. All other files take the module from here."""

    name: str
    module: Any

    @property
    def version(self) -> str:
        """As "11.4.0.106"."""
        return str(self.module.__version__)

    @property
    def tunes(self) -> bool:
        """Whether a build times kernels on the GPU at hand: its plans are for that GPU alone, and it needs one."""
        return self.name == "tensorrt"

    @property
    def captures_itself(self) -> bool:
        """Whether CUDA graphs are the library's own affair.

        RTX swaps kernels under a running shape, so that a graph captured from outside may hold the slow ones
        (docs.nvidia.com/deeplearning/tensorrt-rtx, "Working with RTX CUDA Graphs").
        """
        return not self.tunes

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """The GPU architectures it can build for here, as "sm80"."""
        if self.tunes:
            here = capability_here()
            return (here,) if here else ()
        members = self.module.ComputeCapability.__members__
        return tuple(name.lower() for name in members if name.startswith("SM"))

    def require(self, capability: str) -> None:
        """Refuse an architecture that this library cannot build for.

        Raises:
            ValueError: naming what it can build for, and what works instead.
        """
        if capability in self.targets:
            return
        if self.tunes:
            at_hand = self.targets[0] if self.targets else "none"
            raise ValueError(f"TensorRT builds for the GPU at hand ({at_hand}), not for {capability}: run this on such "
                             f"a GPU, or build with tensorrt_rtx where it knows {capability}")  # fmt: skip
        raise ValueError(f"TensorRT-RTX {self.version} builds for {', '.join(self.targets)}, not for {capability}: on "
                         f"an H100 or H200 (sm90) and a B200 (sm100) build with full TensorRT on that GPU "
                         f"({INSTALL['tensorrt']})")  # fmt: skip

    def log(self) -> Any:
        """Return a logger for the library: warnings go to this file's logger, errors are also kept in `.errors`."""
        severity = self.module.ILogger.Severity
        levels = {severity.INTERNAL_ERROR: logging.ERROR, severity.ERROR: logging.ERROR}

        class Log(self.module.ILogger):  # type: ignore[name-defined, misc]
            def __init__(self, base: Any) -> None:
                base.__init__(self)
                self.errors: list[str] = []

            def log(self, level: Any, message: str) -> None:
                if level in levels:
                    self.errors.append(message)
                if level in levels or level == severity.WARNING:
                    log.log(levels.get(level, logging.DEBUG), "%s", message)

        return Log(self.module.ILogger)

    def network(self, builder: Any) -> Any:
        """Return an empty network in which every tensor has the type that the graph gives it.

        In 11.x that is the only kind and the flag is gone or ignored; in 10.x and RTX it is asked for
        (docs.nvidia.com/deeplearning/tensorrt, "Migrating from TensorRT 10.x to 11.x").
        """
        flags = getattr(self.module, "NetworkDefinitionCreationFlag", None)
        strong = getattr(flags, "STRONGLY_TYPED", None)
        if strong is None and self.module_version < (11, 0):
            raise ValueError(f"{self.name} {self.version} has no strongly typed networks: install {self.oldest}")
        return builder.create_network(0 if strong is None else 1 << int(strong))

    def aim(self, config: Any, capability: str) -> None:
        """Tell a builder config which architecture to build for. TensorRT has no such choice."""
        self.require(capability)
        if not self.tunes:
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(self.module.ComputeCapability, capability.upper()), 0)

    def context(self, engine: Any, config: Any) -> Any:
        """Return an execution context that brings no memory of its own. config is `runtime_config`'s."""
        managed = self.module.ExecutionContextAllocationStrategy.USER_MANAGED
        if config is None:
            return engine.create_execution_context(managed)
        config.set_execution_context_allocation_strategy(managed)
        return engine.create_execution_context(config)

    def runtime_config(self, engine: Any) -> Any:
        """Return RTX's settings of execution contexts, its own CUDA graphs switched on; None for TensorRT."""
        if self.tunes:
            return None
        config = engine.create_runtime_config()
        config.cuda_graph_strategy = self.module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return config

    def dtype(self, value: Any) -> torch.dtype:
        """Return torch's name of a tensor type.

        Raises:
            ValueError: torch has no tensors of that type.
        """
        types = {"FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16, "INT32": torch.int32,
                 "INT64": torch.int64, "INT8": torch.int8, "UINT8": torch.uint8, "BOOL": torch.bool}  # fmt: skip
        name = str(value).rpartition(".")[2]
        if name not in types:
            raise ValueError(f"the plan has an input or output of type {name}: export it as one of {', '.join(types)}")
        return types[name]

    @property
    def module_version(self) -> tuple[int, int]:
        """Major and minor."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)

    @property
    def oldest(self) -> str:
        return ".".join(map(str, OLDEST[self.name])) + " or newer"


def capability_here() -> str | None:
    """Return the architecture of the current GPU as "sm90", or None without one."""
    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return f"sm{major}{minor}"


def find(name: str) -> Library | None:
    """Return a library if it is installed and loads. A TensorRT without its libraries does not load: it is logged."""
    try:
        library = Library(name, importlib.import_module(name))
    except ModuleNotFoundError:
        return None
    except ImportError as error:
        log.warning("%s is installed but does not load: %s", name, error)
        return None
    return library if library.module_version >= OLDEST[name] else None


def open_library(name: str = "auto", capability: str | None = None) -> Library:
    """Return the library of that name; auto is the one that can build for the capability, TensorRT first.

    Raises:
        ValueError: no such library, not installed, or neither can build for the capability.
    """
    if name != "auto":
        if name not in NAMES:
            raise ValueError(f"no library {name!r}: choose auto, {' or '.join(NAMES)}")
        library = find(name)
        if library is None:
            oldest = ".".join(map(str, OLDEST[name]))
            raise ValueError(f"{name} {oldest} or newer is not installed, or does not load: `{INSTALL[name]}`")
        if capability:
            library.require(capability)
        return library
    found = [library for library in map(find, NAMES) if library]
    if not found:
        raise ValueError(f"neither TensorRT nor TensorRT-RTX is installed: `{INSTALL['tensorrt']}` on a machine with "
                         f"a GPU, `{INSTALL['tensorrt_rtx']}` on one without, or with a consumer GPU")  # fmt: skip
    able = [library for library in found if capability is None or capability in library.targets]
    if not able:
        assert capability
        found[-1].require(capability)
    return able[0]
