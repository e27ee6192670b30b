"""From the name of a source to the place where its parts lie, and to the place that gives what it lacks."""

from collections.abc import Iterable
from pathlib import Path

import torch

from ssd1b.command import nearest
from ssd1b.family.table import member
from ssd1b.models.detect import detect
from ssd1b.models.hub import fetch
from ssd1b.models.places import Folder, Place, SingleFile

NANO = Path(__file__).parents[1] / "assets" / "nano"
DONORS = {
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "sd-1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "nano-sdxl": "nano",
    "nano-sd-1.5": "nano",
}
"""A teacher of the family -> who gives what a single file of its widths lacks."""
GIVE_DONOR = "give donor=SOURCE, a whole pipeline of the same kind"


def resolve(source: str) -> tuple[str, Path | None]:
    """Return (path or hub id, expert delta or None) of a source.

    Raises:
        ValueError: the source is a path that does not exist, or an expert that does not ship.
    """
    if source.startswith("models:/"):
        raise ValueError(f"{source} is a registry uri: download it with ssd1b.tracking.download first")
    name, plus, expert = source.partition("+")
    if name == "nano":
        delta = NANO / "experts" / f"{expert}.safetensors"
        if plus and not delta.exists():
            known = sorted(path.stem for path in delta.parent.glob("*.safetensors"))
            raise ValueError(f"no expert {expert!r} in the nano family: choose from {known}")
        return str(NANO), delta if plus else None
    hub_like = source.count("/") == 1 and not source.startswith((".", "/", "~")) and not source.endswith("/")
    if not Path(source).exists() and (not hub_like or Path(source).suffix in (".safetensors", ".ckpt")):
        raise ValueError(
            f"no model at {source}{nearest(source, ['nano'])}: give a folder in diffusers layout, a .safetensors file, "
            f"a hub id (owner/name), or 'nano'"
        )
    return source, None


def placed(where: str, weights_of: Iterable[str], dtype: torch.dtype) -> Place:
    """Return the place of a path or hub id; of a hub, the weights of the named parts are fetched.

    Raises:
        ValueError: a file that is no safetensors file, or a hub id that cannot be fetched.
    """
    path = Path(where)
    if path.is_file():
        return SingleFile(path)
    return Folder(path if path.is_dir() else fetch(where, weights_of, dtype))


def giver(own: Place, donor: str | None, source: str, lacking: list[str], dtype: torch.dtype) -> Place:
    """Return the place that gives what a source is lacking: the donor, or who gives to files of its widths.

    Raises:
        ValueError: no donor is given and none stands to reason, or it cannot be reached.
    """
    if donor is None and isinstance(own, SingleFile):
        donor = usual_donor(own)
    if donor is None:
        raise ValueError(f"{source} has no {', '.join(lacking)}: {GIVE_DONOR}")
    weights_of = [part for part in lacking if not own.has(part)]
    try:
        return placed(resolve(donor)[0], weights_of, dtype)
    except ValueError as error:
        raise ValueError(
            f"{source} has no {', '.join(lacking)} and its donor {donor} cannot give them ({error}): {GIVE_DONOR}; of "
            f"parts whose weights the file has, tokenizers and config.json are enough"
        ) from error


def usual_donor(own: SingleFile) -> str | None:
    """Return who gives to single files of these widths; None where nothing tells."""
    if "unet" in own.parts:
        config = detect(own.parts["unet"].shapes, where=str(own.path)).config
        for teacher, donor in DONORS.items():
            theirs = member(teacher)
            levels = min(len(theirs["block_out_channels"]), len(config["block_out_channels"]))
            same_widths = tuple(theirs["block_out_channels"][:levels]) == tuple(config["block_out_channels"][:levels])
            if same_widths and theirs["cross_attention_dim"] == config["cross_attention_dim"]:
                return donor
        return None
    # a VAE alone: full-sized ones of both lines look alike, the nano family's has widths of its own
    widest = max(shape[0] for shape in own.parts["vae"].shapes.values())
    return "nano" if widest <= 64 else None
