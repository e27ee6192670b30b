"""Our engine without our server: draws a list of requests to their end. What contestants (a) and (b) are built on."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssd1b.adapters.adapter import Adapter
from ssd1b.engines.bundle import Bundle
from ssd1b.sampling.denoise import Request, generate
from ssd1b.sampling.schedule import Schedule
from ssd1b.trials.load.wire import Wanted


class OurEngine:
    """A bundle on the backend that `serve` would choose, with adapters in the slots of its bank.

    Not for several threads at once.
    """

    def __init__(self, model: Path, adapters: Path) -> None:
        self.bundle = Bundle.load(model)
        self.engine, self.adapters = self.bundle.engine(), adapters
        self.schedule = Schedule.read(model)
        self.read: dict[str, Adapter] = {}
        self.slots: OrderedDict[str, int] = OrderedDict()  # least recently used first
        self.reading = threading.Lock()

    def adapter(self, name: str) -> Adapter:
        """Return an adapter, read once."""
        with self.reading:
            if name not in self.read:
                self.read[name], _ = self.bundle.read_adapter(self.adapters / name, self.engine, name)
            return self.read[name]

    def load(self, slot: int, name: str) -> None:
        """Put an adapter into a slot, of the UNet's bank and of the text towers'."""
        self.engine.load_adapter(slot, self.adapter(name))
        self.bundle.text.load_adapter(slot, self.adapter(name))

    def slot_of(self, name: str | None) -> int:
        """Return the slot of an adapter; if it has none it takes a free one, or the least recently used one's."""
        if name is None:
            return 0
        if name not in self.slots:
            full = len(self.slots) == self.engine.slots - 1
            slot = self.slots.popitem(last=False)[1] if full else len(self.slots) + 1
            self.load(slot, name)
            self.slots[name] = slot
        self.slots.move_to_end(name)
        return self.slots[name]

    def draw(self, wanted: Sequence[Wanted], slot: int) -> list[NDArray[np.uint8]]:
        """Return the pictures, each (H, W, 3), drawn as one batch to the end of the longest, all with one adapter."""
        asked = [
            Request(
                prompt=one.prompt,
                seed=one.seed,
                steps=one.num_inference_steps,
                guidance=one.guidance_scale,
                size=one.pixels,
                slot=slot,
            )
            for one in wanted
        ]
        prompts = self.bundle.prompts.wearing(slot, 1.0)
        pictures_BHW3 = generate(
            self.engine, prompts, self.bundle.decode, asked, len(asked), schedule=self.schedule,
            device=self.engine.device,
        )  # fmt: skip
        return list(pictures_BHW3.numpy())
