"""What a replica needs of a model: nine verbs. The real one stands in serve/champion.py; tests bring a small one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from serve.adapters.shelf import Readable
from serve.offer import Offer
from serve.request import GenerationRequest
from serve.steps.scheduler import Need
from ssd1b.sizes import Size

# H W height and width in pixels, h w latent positions, 3 red green blue

Row = TypeVar("Row")
"""The state of one picture in the making; only the painter looks into it."""


class Painter(Protocol, Generic[Row]):
    """A model that draws step by step.

    Each verb may run on another thread, and all of them at once; `advance`, `begin` and `decode` each never twice at
    once.
    """

    offer: Offer
    slots: int
    """Slots of the LoRA bank, with slot 0, the plain model."""

    def count(self, text: str) -> int:
        """Return the tokens of a text, without the start and end marks and without truncation.

        Raises:
            ValueError: a text that cannot be read, in words for the caller.
        """

    def begin(self, request: GenerationRequest, size: Size, slot: int, scale: float) -> list[Row]:
        """Encode the prompts, and the picture to start from; return one row per picture, at its first noise.

        scale weighs the adapter in the slot.

        Raises:
            ValueError: what the sampler cannot do, in words for the caller.
            RequestError: a picture that cannot be read.
        """

    def need(self, row: Row) -> Need:
        """Return what the rest of a row asks of the engine."""

    def advance(self, rows: Sequence[Row]) -> None:
        """Take the rows, which are of one group, one denoising step further, in place; all of them or none."""

    def preview(self, row: Row) -> Callable[[], NDArray[np.uint8]]:
        """Return what makes a small picture, (h, w, 3), of the row as it is now.

        Called between two steps, so it must not wait; what it returns may, and runs elsewhere.
        """

    def decode(self, rows: Sequence[Row]) -> list[NDArray[np.uint8]]:
        """Return the pictures of finished rows of one size, each of shape (H, W, 3)."""

    def read_adapter(self, path: Path, name: str) -> Readable:
        """Read an adapter into the host's memory, from a file or folder.

        Raises:
            ValueError: not an adapter, or one that fits no layer, in words for the caller.
        """

    def load_adapter(self, slot: int, parts: Sequence[tuple[Any, float]]) -> None:
        """Put adapters that were read, each at its weight, into a slot; steps that draw with other slots go on.

        Raises:
            ValueError: they do not fit into a slot, in words for the caller.
        """
