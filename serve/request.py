"""What a caller may ask for, whatever dialect it came in: one frozen request.

A dialect (serve/dialects) turns its JSON into a GenerationRequest. The replica, which alone knows the model it holds,
compares it with its Offer. Both refuse with a RequestError, which says what is allowed.
"""

from dataclasses import dataclass, field
from typing import Literal

from ssd1b.sizes import Size

OutputFormat = Literal["png", "jpeg", "webp"]
Priority = Literal["interactive", "batch"]


@dataclass(frozen=True, kw_only=True)
class LoraChoice:
    """One adapter of the registry, by its short name."""

    name: str
    scale: float = 1.0
    """Multiplies the adapter's change of the weights: 0 is the plain model."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A picture to start from instead of noise: image-to-image, or with a mask inpainting."""

    picture: bytes
    """A PNG, JPEG or WebP file. It is scaled and cropped about its centre to the request's size."""
    strength: float = 0.8
    """How much of the way is drawn anew, above 0 to 1; 1 keeps nothing but what the mask keeps."""
    mask: bytes | None = None
    """A picture file of the same shape: white is drawn anew, black is kept."""


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """Pictures to make. Equal requests give equal pictures, so a request may be issued again after a failure."""

    prompt: str
    """Brackets in it weigh, (word:1.3) or (word); \\( is text (ssd1b/sampling/weights.py)."""
    negative_prompt: str = ""
    """The same."""
    n: int = 1
    size: Size | None = None
    """None is the model's first size, or with a picture to start from the one nearest its shape."""
    seed: int
    """Seed of the first picture; picture i has seed + i."""
    steps: int = 20
    guidance: float = 5.0
    """Weight of classifier-free guidance; 1 and below turns it off."""
    rescale: float = 0.0
    """Guidance rescale, 0 to 1: draws the guided prediction's spread back to the unguided one's."""
    sampler: str = "euler"
    loras: tuple[LoraChoice, ...] = ()
    """Several act together."""
    start: Start | None = None
    style: str | None = None
    """The preset that was put around the prompt (serve/styles.py); told in the picture's metadata only."""
    previews: int = 0
    """Partial pictures to show on the way, for each picture."""
    priority: Priority = "interactive"
    """Batch work waits while there is interactive work, but not for ever."""
    id: str = field(default="", compare=False)
    """Names the request in logs; draws nothing."""
    output_format: OutputFormat = "png"
    output_compression: int = 100
    """Quality of JPEG and WebP, per cent; PNG has no loss and ignores it."""

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.seed, self.seed + self.n))
