"""Who measured: every number that comes out of a network names that network, and unlike ones are never compared.

A Frechet distance of 5 in one network's features and one of 25 in another's say nothing about each other, so features
carry their extractor with them, and whatever takes two sets of features asks first whether they are alike.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from torch import Tensor

# B pictures or texts, H W pixels, C colours, D features, E common width of pictures and texts, N samples

Kind = Literal["pictures", "image-text", "preference"]


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """A network that turns pictures into numbers."""

    name: str
    """What it is called in the names of metrics: "efflite0", "inception", "clip"."""
    kind: Kind
    """What it looks at: pictures alone, pictures and texts in one space, or a pair for how much people like it."""
    source: str
    """Where its weights were read: packages, or a path."""
    dimension: int
    """Of its features; 1 where it gives a score and nothing else."""
    sha256: str
    """Of its weights, or of the code where somebody else's function measures."""
    licence: str
    """Of its weights, SPDX where that is known."""

    @property
    def identity(self) -> str:
        """What must agree for two numbers to be comparable: where the weights lay is no part of it."""
        return f"{self.name}/{self.kind}/{self.dimension}/{self.sha256}"

    def __str__(self) -> str:
        return f"{self.name} ({self.source}, sha256 {self.sha256[:12]})"


@dataclass(frozen=True, kw_only=True)
class Features:
    """What an extractor saw in a set of pictures."""

    extractor: Extractor
    values_ND: Tensor
    """One row a picture."""

    def __len__(self) -> int:
        return len(self.values_ND)


class Eyes(Protocol):
    """What turns pictures into features."""

    @property
    def extractor(self) -> Extractor:
        """Who it is."""

    def features(self, pictures_BHWC: Tensor) -> Tensor:
        """Return features_BD of uint8 pictures, float32 on the CPU."""


class ImageText(Eyes, Protocol):
    """What puts pictures and texts into one space; `features` is what pictures are compared with one another by."""

    def see(self, pictures_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `pictures` and `features` return, in one look."""

    def pictures(self, pictures_BHWC: Tensor) -> Tensor:
        """Return unit vectors (B, E) of uint8 pictures, on the CPU."""

    def texts(self, texts: list[str]) -> Tensor:
        """Return unit vectors (B, E) of texts, on the CPU."""


def refuse_unlike(one: Extractor, other: Extractor) -> None:
    """Let two sets of numbers be compared only if one network made both.

    Raises:
        ValueError: two networks did.
    """
    if one.identity != other.identity:
        raise ValueError(
            f"numbers of {one} and of {other} cannot be compared: measure both sides with the same extractor"
        )


def sha256_of(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of files one after the other, hexadecimal."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(2**20):
                total.update(block)
    return total.hexdigest()
