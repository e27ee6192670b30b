"""What the model that is loaded can do; requests are held against it."""

from dataclasses import dataclass, replace

from serve.errors import RequestError, not_offered
from serve.request import GenerationRequest
from ssd1b.sizes import Size


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
