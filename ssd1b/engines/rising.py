"""An engine that serves on one backend while a better one is made ready, and then changes over between two steps.

A bundle whose plans do not fit the GPU at hand is compiled once per cluster, which takes minutes; nobody waits for it.
"""

import logging
import threading
from collections.abc import Callable

from torch import Tensor

from ssd1b.adapters.adapter import Adapter
from ssd1b.engines.engine import Engine

log = logging.getLogger(__name__)

# B rows, C H W latent, T text tokens, D text width, E pooled width

Rise = Callable[[], Engine | None]
"""Returns the better engine, or None as long as it is not ready. May block for minutes."""


class RisingEngine:
    """Runs an engine (see `Engine`) until another is there. Both must have the same room and layers for adapters."""

    def __init__(self, first: Engine, rise: Rise, every_s: float = 10.0) -> None:
        """Ask `rise` on a thread, again and again, until it returns an engine or fails for good (ValueError)."""
        self.take(first)
        self.rise, self.every_s = rise, every_s
        self.held: dict[int, Adapter] = {}
        self.lock = threading.Lock()
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self.climb, name="rising engine", daemon=True)
        self.thread.start()

    def take(self, engine: Engine) -> None:
        self.now = engine
        self.name, self.device, self.layout = engine.name, engine.device, engine.layout
        self.slots, self.rank = engine.slots, engine.rank

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

    def load_adapter(self, slot: int, adapter: Adapter | None) -> None:
        """Put an adapter into a slot (see `Engine`); it will be there after the change, too."""
        with self.lock:
            self.now.load_adapter(slot, adapter)
            if adapter is None:
                self.held.pop(slot, None)
            else:
                self.held[slot] = adapter

    def climb(self) -> None:
        while not self.closed.is_set():
            try:
                better = self.rise()
            except ValueError as error:
                log.warning("%s goes on serving: %s", self.now.name, error)
                return
            if better is not None:
                self.change(better)
                return
            self.closed.wait(self.every_s)

    def change(self, better: Engine) -> None:
        """Give the better engine the adapters, and let it make the next step."""
        with self.lock:
            for slot, adapter in self.held.items():
                better.load_adapter(slot, adapter)
            log.info("engine: %s from now on, instead of %s", better.name, self.now.name)
            self.take(better)

    def close(self) -> None:
        """Stop asking for a better engine."""
        self.closed.set()
        self.thread.join()
