"""What a replica needs of a model: seven verbs. The real one stands in serve/champion.py; tests bring a small one."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from serve.offer import Offer
from serve.request import GenerationRequest
from ssd1b.sizes import Size

# H W height and width in pixels, 3 red green blue

Row = TypeVar("Row")
"""The state of one picture in the making; only the painter looks into it."""


class Painter(Protocol, Generic[Row]):
    """A model that draws step by step. Each verb may run on another thread; `advance` is never called twice at once."""

    offer: Offer
    slots: int
    """Slots of the LoRA bank, with slot 0, the plain model."""

    def count(self, text: str) -> int:
        """Return the tokens of a text, without the start and end marks and without truncation.

        Raises:
            ValueError: a text that cannot be read, in words for the caller.
        """

    def begin(self, request: GenerationRequest, size: Size, slot: int) -> list[Row]:
        """Encode the prompts and return one row per picture, at its first noise.

        Raises:
            ValueError: what the sampler cannot do, in words for the caller.
        """

    def group(self, row: Row) -> Hashable:
        """Return what rows must be equal in to make a step together."""

    def calls(self, row: Row) -> int:
        """Return how often the row must still be advanced: some samplers call the model twice a step."""

    def advance(self, rows: Sequence[Row]) -> None:
        """Take the rows, which are of one group, one denoising step further, in place."""

    def decode(self, rows: Sequence[Row]) -> list[NDArray[np.uint8]]:
        """Return the pictures of finished rows, each of shape (H, W, 3)."""

    def load_adapter(self, slot: int, folder: Path) -> None:
        """Put the adapter of a PEFT folder into a slot; steps that draw with other slots go on."""
