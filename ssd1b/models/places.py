"""Where the parts of a pipeline lie: a folder in diffusers layout, or one file that holds them all.

Both answer the same two questions about a part, which weights it has and which config, so that whoever builds a
pipeline need not know which of the two it was given.
"""

import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch

from ssd1b.command import show
from ssd1b.models.detect import SGM
from ssd1b.models.weights import Weights

PREFIXES = {
    "unet": (SGM,),
    "vae": ("first_stage_model.",),
    "text_encoder": ("conditioner.embedders.0.transformer.", "cond_stage_model.transformer."),
    "text_encoder_2": ("conditioner.embedders.1.model.",),
}
"""Where the parts lie in a single file, the SDXL line's before the SD-1.5 line's."""

IGNORED = {
    r".*position_ids$": "numbers from 0, made anew",
    r".*logit_scale$": "of CLIP's training",
    r"model_ema\.": "the averaged weights beside those that were sampled from",
    r"(alphas_cumprod|betas|sqrt_|log_one_minus|posterior_|denoiser\.sigmas|lvlb_weights)": "schedules, made anew",
    r"((first_stage_model\.)?loss\.)": "of the VAE's training",
    r"(v_pred|ztsnr)$": "marks that are read by name",
}
"""Names that files of the wild hold and no model needs -> what they are."""
IGNORED_NAMES = re.compile("|".join(IGNORED))
VAE_NAMES = re.compile(r"(encoder|decoder)\.(conv_in|mid|down|up)")


class Place(Protocol):
    """Whatever holds parts of a pipeline."""

    def weights(self, part: str, dtype: torch.dtype) -> Weights | None:
        """Return the weights of a part ("unet", "vae", "text_encoder", "text_encoder_2"); None: it is not here."""
        ...

    def config(self, part: str) -> dict[str, Any] | None:
        """Return the config.json of a part; None: it is not here."""
        ...

    def folder(self, part: str) -> Path | None:
        """Return the folder of a tokenizer or scheduler; None: it is not here."""
        ...

    def has(self, part: str) -> bool:
        """Return whether the part lies here under its name."""
        ...

    @property
    def index(self) -> dict[str, Any]:
        """What model_index.json says of the pipeline; {} where there is none."""
        ...


class Folder:
    """A folder in diffusers layout, or one of its component folders alone."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, part: str) -> Path | None:
        path = self.root / part
        return path if path.is_dir() else None

    def weights(self, part: str, dtype: torch.dtype) -> Weights | None:
        home = self.home(part)
        return Weights.open(home, dtype).without(IGNORED_NAMES) if home else None

    def config(self, part: str) -> dict[str, Any] | None:
        home = self.home(part)
        return read_json(home / "config.json") if home and (home / "config.json").is_file() else None

    def has(self, part: str) -> bool:
        return self.home(part) is not None

    @property
    def index(self) -> dict[str, Any]:
        path = self.root / "model_index.json"
        return read_json(path) if path.is_file() else {}

    def home(self, part: str) -> Path | None:
        """Return the folder of a part: its own within this one, or this one where it is that component's."""
        return self.folder(part) or (self.root if part == self.alone else None)

    @cached_property
    def alone(self) -> str | None:
        """Which component's folder this is; None where it is a whole pipeline's."""
        if any(self.folder(part) for part in PREFIXES):
            return None
        path = self.root / "config.json"
        kind = str(read_json(path).get("_class_name")) if path.is_file() else ""
        return "vae" if kind.startswith("Autoencoder") else "unet"


class SingleFile:
    """A .safetensors file: a whole SGM checkpoint, or a UNet or VAE alone in any layout."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.all = Weights.open(path)

    @cached_property
    def parts(self) -> dict[str, Weights]:
        """The parts that are there."""
        used = self.all.without(IGNORED_NAMES)
        parts = {part: used.under(*prefixes) for part, prefixes in PREFIXES.items()}
        parts = {part: weights for part, weights in parts.items() if weights}
        if not parts:
            alone = "vae" if any(VAE_NAMES.match(name) for name in used) else "unet"
            return {alone: used}
        known = tuple(prefix for prefixes in PREFIXES.values() for prefix in prefixes)
        if strays := sorted(name for name in used if not name.startswith(known)):
            show(f"{self.path}: {len(strays)} tensors belong to no part and are not used: {', '.join(strays[:8])}")
        return parts

    def weights(self, part: str, dtype: torch.dtype) -> Weights | None:  # noqa: ARG002  a file has one precision
        return self.parts.get(part)

    def config(self, part: str) -> dict[str, Any] | None:  # noqa: ARG002
        return None

    def folder(self, part: str) -> Path | None:  # noqa: ARG002
        return None

    def has(self, part: str) -> bool:
        return part in self.parts

    @property
    def index(self) -> dict[str, Any]:
        return {}

    @property
    def schedule(self) -> Mapping[str, Any]:
        """What the file says of its schedule: by the marks `v_pred` and `ztsnr`, as ComfyUI, or in its metadata."""
        said: dict[str, Any] = {}
        if "v_pred" in self.all or self.all.metadata.get("modelspec.prediction_type") == "v":
            said["prediction_type"] = "v_prediction"
        if "ztsnr" in self.all:
            said["rescale_betas_zero_snr"] = True
        return said


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object of a file.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not readable JSON ({error}): fetch it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__} where a JSON object should be: fetch it again")
    return content
