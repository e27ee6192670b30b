"""Toy versions of a really registered model: every picture has the colour of the version that drew it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from toy_painter import OFFER, ToyAdapters, ToyPainter, ToyRow

from serve.rollout import registry
from serve.rollout.target import Target

SHADE = 10


class VersionPainter(ToyPainter):
    def __init__(self, version: str, step_s: float) -> None:
        super().__init__(step_s)
        self.version, self.offer = int(version), replace(OFFER, version=version)

    def decode(self, rows: Sequence[ToyRow]) -> list[NDArray[np.uint8]]:
        return [np.full_like(picture_HW3, SHADE * self.version) for picture_HW3 in super().decode(rows)]


@dataclass(frozen=True)
class ToyRegistered:
    """Follows MLflow's registry, as the real model does; a version takes a while to open, and "broken" ones do not."""

    model: str
    step_s: float = 0.005
    open_s: float = 0.3
    broken: tuple[str, ...] = ()

    def look(self, before: Target | None) -> Target:
        return registry.look(self.model, before)

    def open(self, version: str) -> tuple[VersionPainter, ToyAdapters]:
        time.sleep(self.open_s)
        if version in self.broken:
            raise ValueError(f"version {version} is no model")
        return VersionPainter(version, self.step_s), ToyAdapters()
