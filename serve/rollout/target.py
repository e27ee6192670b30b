"""Which versions of the model are to be served, and which of them draws a request. Pure."""

import hashlib
from dataclasses import dataclass

from serve.request import GenerationRequest


@dataclass(frozen=True)
class Canary:
    """A version that is tried on a share of the requests beside the champion."""

    version: str
    share: float
    """Of the requests, 0 to 1."""


@dataclass(frozen=True)
class Target:
    """What the registry says is to be served."""

    champion: str
    canary: Canary | None = None

    @property
    def versions(self) -> tuple[str, ...]:
        """All that must be open, the champion first."""
        return (self.champion, self.canary.version) if self.canary else (self.champion,)

    def version_for(self, request: GenerationRequest) -> str:
        """Return the version that draws a request.

        It follows from the request alone, so that one that is issued again is drawn by the same version.
        """
        if self.canary and position(request) < self.canary.share:
            return self.canary.version
        return self.champion


def position(request: GenerationRequest) -> float:
    """Return where prompt and seed fall between 0 and 1, evenly spread over requests."""
    digest = hashlib.blake2b(f"{request.seed} {request.prompt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
