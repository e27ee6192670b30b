"""What an engine tells of a request, in order: how far it is, what can be seen already, at last the pictures."""

from dataclasses import dataclass

from serve.errors import RequestError
from ssd1b.sizes import Size


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
class Progress:
    """So many denoising steps of so many are made, over all pictures of the request."""

    made: int
    of: int


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A picture in the making, as the latents tell it without the VAE; a whole file in the request's format."""

    picture: int
    """Which of the request's pictures, from 0."""
    index: int
    """Which of its previews, from 0."""
    data: bytes


Event = Progress | Preview | Generation | RequestError
"""The last one is a Generation or a RequestError, and neither comes before."""
