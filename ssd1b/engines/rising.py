"""Parts of a bundle that serve on one backend while a better one is made ready, and change over between two calls.

A bundle whose plans do not fit the GPU at hand is compiled once per cluster, which takes minutes; nobody waits for it.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from ssd1b.adapters.adapter import Adapter
from ssd1b.engines.engine import Engine
from ssd1b.engines.text import AdaptedText

log = logging.getLogger(__name__)

# B rows, C H W latent, T text tokens, W tokens of a window, D text width, E pooled width

Better = TypeVar("Better")
"""What the better parts are made of."""


class Ascent(Generic[Better]):
    """Asks for what the better parts are made of until it is there, and then tells whoever serves meanwhile."""

    def __init__(self, there: Better | None, rise: Callable[[], Better | None], every_s: float = 10.0) -> None:
        """Take what is there already; otherwise ask `rise` on a thread, again and again, until it answers.

        rise may block for minutes. It returns None as long as another process is at it, and raises ValueError where
        nothing better can be had.
        """
        self.there, self.rise, self.every_s = there, rise, every_s
        self.waiting: list[Callable[[Better], None]] = []
        self.lock, self.closed = threading.Lock(), threading.Event()
        self.thread = threading.Thread(target=self.climb, name="ascent", daemon=True)
        if there is None:
            self.thread.start()

    def then(self, change: Callable[[Better], None]) -> None:
        """Call `change` once the better parts can be had: at once, or later on the asking thread."""
        with self.lock:
            if self.there is None:
                self.waiting.append(change)
                return
        self.tell(change, self.there)

    def climb(self) -> None:
        while not self.closed.is_set():
            try:
                better = self.rise()
            except ValueError as error:
                log.warning("what serves goes on serving: %s", error)
                return
            if better is not None:
                with self.lock:
                    self.there, waiting = better, self.waiting
                for change in waiting:
                    self.tell(change, better)
                return
            self.closed.wait(self.every_s)

    def tell(self, change: Callable[[Better], None], better: Better) -> None:
        """A part that cannot change over goes on as it was; the others change."""
        try:
            change(better)
        except ValueError as error:
            log.warning("what serves goes on serving: %s", error)

    def close(self) -> None:
        """Stop asking."""
        self.closed.set()
        if self.thread.is_alive():
            self.thread.join()


class Holder(Protocol):
    """What takes adapters."""

    def load_adapter(self, slot: int, adapter: Adapter | None) -> None: ...


Held = TypeVar("Held", bound=Holder)


class Rising(Generic[Held]):
    """A part with adapters: all that it holds is in the better part before that makes its first call.

    Both must have the same room and layers for adapters.
    """

    def __init__(self, first: Held) -> None:
        self.held: dict[int, Adapter] = {}
        self.lock = threading.Lock()
        self.take(first)

    def take(self, part: Held) -> None:
        self.now = part

    def load_adapter(self, slot: int, adapter: Adapter | None) -> None:
        """Put an adapter into a slot (see `Engine`); it will be there after the change, too."""
        with self.lock:
            self.now.load_adapter(slot, adapter)
            if adapter is None:
                self.held.pop(slot, None)
            else:
                self.held[slot] = adapter

    def change(self, better: Held) -> None:
        """Give the better part the adapters, and let it make the next call."""
        with self.lock:
            for slot, adapter in self.held.items():
                better.load_adapter(slot, adapter)
            was = type(self.now).__name__
            self.take(better)
            log.info("%s from now on, instead of %s", type(better).__name__, was)


class RisingEngine(Rising[Engine]):
    """A UNet (see `Engine`)."""

    def take(self, part: Engine) -> None:
        """Serve with this one from now on."""
        self.now = part
        self.name, self.device, self.layout = part.name, part.device, part.layout
        self.slots, self.rank = part.slots, part.rank

    def __call__(
        self,
        latents_BCHW: Tensor,
        timestep_B: Tensor,
        text_BTD: Tensor,
        pooled_BE: Tensor,
        time_ids_B6: Tensor,
        slot_B: Tensor,
        scale_B: Tensor,
    ) -> Tensor:
        """Return the predicted noise_BCHW (see `Engine`)."""
        return self.now(latents_BCHW, timestep_B, text_BTD, pooled_BE, time_ids_B6, slot_B, scale_B)


class RisingText(Rising[AdaptedText]):
    """Text towers (see `AdaptedText`)."""

    def take(self, part: AdaptedText) -> None:
        """Serve with this one from now on."""
        self.now = part
        self.device, self.window, self.widths, self.pooled = part.device, part.window, part.widths, part.pooled
        self.slots, self.rank, self.layouts = part.slots, part.rank, part.layouts

    def __call__(
        self, ids: Sequence[Tensor], slot_B: Tensor | None = None, scale_B: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (text_BWD, pooled_BE) of ids_BW (see `TextEngine`)."""
        return self.now(ids, slot_B, scale_B)


class RisingDecoder:
    """A VAE decoder: latents_BCHW to uint8 pictures (B, height, width, 3)."""

    def __init__(self, first: Callable[[Tensor], Tensor]) -> None:
        self.now = first

    def __call__(self, latents_BCHW: Tensor) -> Tensor:
        """Return the pictures."""
        return self.now(latents_BCHW)

    def change(self, better: Callable[[Tensor], Tensor]) -> None:
        """Decode with this one from now on."""
        self.now = better
