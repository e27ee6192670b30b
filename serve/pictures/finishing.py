"""From pixels to the file a caller gets: look at them, mark them, encode them with how they were made, sign that.

In this order, since each step must see what the ones before it left: a safety filter judges the picture itself, the
watermark is in the pixels that are encoded, and the signature covers every byte of the file.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from serve.errors import RequestError
from serve.offer import Offer
from serve.pictures.files import picture_file
from serve.pictures.parameters import parameters
from serve.pictures.provenance import Signing, opened, signed
from serve.pictures.watermark import BYTES, LEAST, marked
from serve.request import GenerationRequest
from ssd1b.sizes import Size

logger = logging.getLogger("ray.serve")

Hook = Callable[[NDArray[np.uint8], GenerationRequest], str | None]
"""A safety filter: sees the pixels (H, W, 3) and the request, returns None, or why the picture must not go out."""


@dataclass(frozen=True, kw_only=True)
class Finishing:
    """What is done to every picture. Only the parameters are on by default."""

    parameters: bool = True
    """Prompts and settings in the file, as A1111 writes them."""
    watermark: str | None = None
    """An invisible message of up to 16 bytes; smaller pictures than 256 pixels a side cannot carry it."""
    provenance: Signing | None = None
    """A signed C2PA manifest."""
    safety: str | None = None
    """`package.module:function` of a Hook. One picture that it flags refuses the whole request, uncharged."""

    def check(self, offer: Offer) -> None:
        """Fail at the start rather than at the first picture, and say aloud which sizes go without a watermark.

        Raises:
            ValueError: a watermark that is too long, files that do not sign, a hook that cannot be imported.
        """
        if self.watermark is not None:
            if not 1 <= len(self.watermark.encode()) <= BYTES:
                raise ValueError(f"watermark {self.watermark!r} is not 1 to {BYTES} bytes long")
            small = [str(size) for size in offer.sizes if min(size.height, size.width) < LEAST]
            if small:
                logger.warning("pictures of %s carry no watermark: it needs %d pixels a side", ", ".join(small), LEAST)
        if self.provenance:
            opened(self.provenance)
        if self.safety:
            hook(self.safety)


def finished(
    pixels_HW3: NDArray[np.uint8],
    request: GenerationRequest,
    seed: int,
    offer: Offer,
    how: Finishing,
    lora_hashes: Mapping[str, str] | None = None,
) -> bytes:
    """Return the file of one picture, in the format of the request.

    Unless it is signed, equal arguments give equal bytes.

    Raises:
        RequestError: 400 `moderation_blocked`, the safety filter flagged it; why stands in the log, not in the answer.
    """
    if how.safety and (why := hook(how.safety)(pixels_HW3, request)):
        logger.warning("a picture of seed %d was blocked: %s", seed, why)
        raise RequestError(
            "The safety filter of this server blocked a picture of this request; nothing was charged",
            None,
            "moderation_blocked",
            400,
            "image_generation_user_error",
        )
    size = Size(*pixels_HW3.shape[:2])
    if how.watermark is not None and min(size.height, size.width) >= LEAST:
        pixels_HW3 = marked(pixels_HW3, how.watermark.encode())
    text = parameters(request, seed, size, offer, lora_hashes) if how.parameters else None
    data = picture_file(pixels_HW3, request.output_format, request.output_compression, text)
    return signed(data, request.output_format, offer, how.provenance) if how.provenance else data


@lru_cache(maxsize=4)
def hook(name: str) -> Hook:
    """Import a hook.

    Raises:
        ValueError: there is none of that name.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"safety hook {name!r}: write package.module:function")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"safety hook {name!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ValueError(f"safety hook {name!r} is no function")
    return found  # type: ignore[no-any-return]
