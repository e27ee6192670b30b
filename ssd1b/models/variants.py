"""Which files of a component folder are its weights: whole or in shards, full precision or a variant. Pure.

diffusers and transformers name one and the same thing in many ways; `model` stands for either stem:
model.safetensors, model.fp16.safetensors, model-00001-of-00002.safetensors with model.safetensors.index.json, and the
variants of those, model.fp16-00001-of-00002.safetensors or model-00001-of-00002.fp16.safetensors with
model.safetensors.index.fp16.json or model.fp16.safetensors.index.json.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ssd1b.models.header import NO_PICKLE

STEM = r"(?P<stem>diffusion_pytorch_model|model)"
VARIANT = r"(?:\.(?P<variant>[A-Za-z0-9_]+))?"
WHOLE = re.compile(rf"{STEM}{VARIANT}\.safetensors")
INDEX = re.compile(rf"{STEM}{VARIANT}\.safetensors\.index(?:\.(?P<late>[A-Za-z0-9_]+))?\.json")
SHARD = re.compile(rf"{STEM}{VARIANT}-\d+-of-\d+(?:\.(?P<late>[A-Za-z0-9_]+))?\.safetensors")
PREFERENCE: dict[torch.dtype | None, tuple[str | None, ...]] = {
    torch.float16: ("fp16", None, "fp32", "bf16"),
    torch.bfloat16: ("bf16", None, "fp32", "fp16"),
}
FULL_FIRST = (None, "fp32", "fp16", "bf16")


@dataclass(frozen=True)
class Choice:
    """One set of weights among the files of a folder."""

    name: str
    """The file, or the index of the shards."""
    variant: str | None
    shards: tuple[str, ...] = ()
    """Files that seem to belong to the index; the index itself has the last word."""

    @property
    def sharded(self) -> bool:
        return self.name.endswith(".json")


def choose(names: Iterable[str], dtype: torch.dtype | None, where: str) -> Choice:
    """Return the weights to read for a wanted dtype: full precision, unless a half dtype is wanted and there.

    Raises:
        ValueError: there are none, only pickles, shards without an index, or the same weights twice.
    """
    names = sorted(names)
    found: dict[str | None, list[str]] = {}
    for name in names:
        if match := INDEX.fullmatch(name):
            found.setdefault(match["variant"] or match["late"], []).append(name)
        elif match := WHOLE.fullmatch(name):
            found.setdefault(match["variant"], []).append(name)
    if not found:
        raise ValueError(f"{where} {nothing(names)}")
    wanted = [variant for variant in PREFERENCE.get(dtype, FULL_FIRST) if variant in found]
    others = sorted(str(variant) for variant in found if variant not in FULL_FIRST)
    if not wanted and len(others) > 1:
        raise ValueError(f"{where} has the variants {', '.join(others)} and no plain weights: leave one of them")
    variant = wanted[0] if wanted else others[0]
    if len(found[variant]) > 1:
        raise ValueError(f"{where} holds the same weights twice, as {' and '.join(found[variant])}: delete one")
    shards = [name for name in names if (m := SHARD.fullmatch(name)) and (m["variant"] or m["late"]) == variant]
    name = found[variant][0]
    return Choice(name, variant, tuple(shards) if name.endswith(".json") else ())


def nothing(names: list[str]) -> str:
    """Return why a folder's files are no weights."""
    if shards := [name for name in names if SHARD.fullmatch(name)]:
        return f"has shards ({shards[0]}, ...) and no index: fetch the .safetensors.index.json that belongs to them"
    if pickles := [name for name in names if name.endswith((".bin", ".ckpt", ".pt", ".pth"))]:
        return f"has only {', '.join(pickles[:3])}: {NO_PICKLE}"
    seen = ", ".join(names[:8]) or "nothing"
    return f"has no weights (it holds {seen}): diffusion_pytorch_model.safetensors or model.safetensors is looked for"
