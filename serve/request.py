"""What a caller may ask for, whatever dialect it came in: one frozen request, one kind of refusal.

A dialect (serve/dialects) turns its JSON into a GenerationRequest. The replica, which alone knows the model it holds,
compares it with its Offer. Both refuse with a RequestError, which says what is allowed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ssd1b.command import nearest
from ssd1b.sizes import Size

OutputFormat = Literal["png", "jpeg", "webp"]


class RequestError(Exception):
    """A request that is refused: the members of OpenAI's error object and the HTTP status."""

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(
            message, param, code, status, kind
        )  # all of them, so that pickle rebuilds it between processes
        self.message, self.param, self.code, self.status, self.kind = message, param, code, status, kind

    def __str__(self) -> str:
        return self.message

    def body(self) -> dict[str, dict[str, str | None]]:
        """The JSON body of OpenAI's error responses."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True, kw_only=True)
class LoraChoice:
    """One adapter of the registry, by its short name."""

    name: str
    scale: float = 1.0
    """Multiplies the adapter's change of the weights: 0 is the plain model."""


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """Pictures to make. Equal requests give equal pictures, so a request may be issued again after a failure."""

    prompt: str
    """Brackets in it weigh, (word:1.3) or (word); \\( is text (ssd1b/sampling/weights.py)."""
    negative_prompt: str = ""
    """The same."""
    n: int = 1
    size: Size | None = None
    """None is the model's first size."""
    seed: int
    """Seed of the first picture; picture i has seed + i."""
    steps: int = 20
    guidance: float = 5.0
    """Weight of classifier-free guidance; 1 and below turns it off."""
    sampler: str = "euler"
    lora: LoraChoice | None = None
    output_format: OutputFormat = "png"
    output_compression: int = 100
    """Quality of JPEG and WebP, per cent; PNG has no loss and ignores it."""

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.seed, self.seed + self.n))


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One finished picture."""

    data: bytes
    seed: int


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The answer to one request."""

    pictures: tuple[Picture, ...]
    size: Size
    prompt_tokens: int
    """Tokens of prompt and negative prompt, without the start and end marks."""
    latent_tokens: int
    """Latent positions of all pictures: an eighth of each side, squared, times n."""
    replica: str = ""
    """Which process made them, for logs and for the test that kills it."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What the model that is loaded can do."""

    model: str
    version: str
    created: int
    """When this endpoint opened it, seconds since 1970."""
    sizes: tuple[Size, ...]
    samplers: tuple[str, ...]
    prompt_tokens: int
    """Longest prompt, without the start and end marks."""
    loras: tuple[str, ...] = ()

    def with_loras(self, names: tuple[str, ...]) -> "Offer":
        return replace(self, loras=names)

    def admit(self, request: GenerationRequest, prompt_tokens: int, negative_tokens: int) -> Size:
        """Return the size to draw.

        Raises:
            RequestError: a size, sampler or prompt length that the model does not offer.
        """
        for param, count in (("prompt", prompt_tokens), ("negative_prompt", negative_tokens)):
            if count > self.prompt_tokens:
                raise RequestError(
                    f"{param} has {count} tokens; {self.model} reads at most {self.prompt_tokens}. Shorten it.",
                    param,
                    "prompt_too_long",
                )
        if request.sampler not in self.samplers:
            raise not_offered("sampler", request.sampler, self.samplers)
        size = request.size or self.sizes[0]
        if size not in self.sizes:
            raise not_offered("size", str(size), [str(one) for one in self.sizes])
        return size


def not_offered(param: str, value: str, allowed: Sequence[str]) -> RequestError:
    """The refusal of a value outside a known list: names the list and the nearest of it."""
    hint = nearest(value, allowed) if len(allowed) > 1 else ""
    return RequestError(
        f"{param} {value!r} is not offered{hint}; offered: {', '.join(allowed) or 'none yet'}",
        param,
        "invalid_value",
    )
