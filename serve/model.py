"""What a replica serves: a model of which there are versions, one of them the champion."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from serve.adapters.catalogue import Adapters
from serve.painter import Painter
from serve.rollout.target import Target

Opened = tuple[Painter[Any], Adapters]
"""A version ready to draw, and the place its adapters come from."""


class Model(Protocol):
    """Its verbs block, and run in the replica's process. The real one is serve/champion.py's `Registered`."""

    def look(self, before: Target | None) -> Target:
        """Return which versions are to be served, given what was before.

        Raises:
            ValueError: none.
        """

    def open(self, version: str) -> Opened:
        """Open a version.

        Raises:
            ValueError: it cannot be served.
        """


@dataclass(frozen=True)
class Fixed:
    """A model that never moves: one version, opened by a function."""

    opens: Callable[[], Opened]

    def look(self, before: Target | None) -> Target:
        return before or Target("1")

    def open(self, version: str) -> Opened:
        assert version == "1", f"there is no version {version}"
        return self.opens()
