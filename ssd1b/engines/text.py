"""Text towers with a LoRA bank of their own, in torch: the reference for the other backends."""

import contextlib
import threading
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ssd1b.adapters.adapter import Adapter
from ssd1b.engines.bank import Bank, Layout
from ssd1b.engines.graph import adapted, tower_layout
from ssd1b.sampling.text import TextEngine, Tower, Towers

# B windows, W tokens of a window, D widths of the towers side by side, E pooled width


class AdaptedText(TextEngine, Protocol):
    """Text towers whose every window may have an adapter of its own."""

    slots: int
    """Slots of the bank, slot 0 (no adapter) included."""
    rank: int
    """The greatest adapter rank a slot holds."""
    layouts: tuple[Layout, ...]
    """The layers of each tower that an adapter may change."""

    def load_adapter(self, slot: int, adapter: Adapter | None) -> None:
        """Put an adapter's text layers into a slot; None, or one that leaves the text alone, empties it.

        Raises:
            ValueError: slot 0 or past the last, a rank above the bank's, or a layer the towers have not.
        """
        ...


class TorchText:
    """Runs towers where they lie and in their precision; the towers are not changed.

    Calls take turns by a lock of their own, because the side paths hang on the towers while one runs.
    """

    def __init__(self, towers: Sequence[Tower], *, slots: int = 9, rank: int = 8) -> None:
        """Take towers, and room for adapters beside them."""
        self.plain, self.slots, self.rank = Towers(tuple(towers)), slots, rank
        self.device, self.window = self.plain.device, self.plain.window
        self.widths, self.pooled = self.plain.widths, self.plain.pooled
        self.layouts = tuple(tower_layout(tower) for tower in towers)
        self.banks = [
            Bank(layout, slots, rank, tower.device, tower.dtype)
            for layout, tower in zip(self.layouts, towers, strict=True)
        ]
        self.lock = threading.Lock()

    @torch.no_grad()
    def __call__(
        self, ids: Sequence[Tensor], slot_B: Tensor | None = None, scale_B: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (text_BWD, pooled_BE) of ids_BW (see `TextEngine`)."""
        with self.lock, contextlib.ExitStack() as stack:
            if slot_B is not None and scale_B is not None and self.banks[0].needed(slot_B):
                slot_B, scale_B = slot_B.to(self.device), scale_B.to(self.device)
                for tower, bank in zip(self.plain.towers, self.banks, strict=True):
                    stack.enter_context(adapted(tower, bank.layout, slot_B, scale_B, bank.arrays))
            return self.plain(ids)

    def load_adapter(self, slot: int, adapter: Adapter | None) -> None:
        """Put an adapter's text layers into a slot (see `AdaptedText`)."""
        staged = staged_text(self.banks, slot, adapter)
        with self.lock:
            for bank, arrays in zip(self.banks, staged, strict=True):
                bank.write(slot, arrays)


def staged_text(banks: Sequence[Bank], slot: int, adapter: Adapter | None) -> list[list[Tensor] | None]:
    """Return what goes into a slot of each tower's bank; a refusal leaves all of them as they were.

    Raises:
        ValueError: see `AdaptedText.load_adapter`.
    """
    layers = adapter.text if adapter is not None and adapter.text else ({},) * len(banks)
    name = adapter.name if adapter is not None else ""
    return [bank.stage(slot, part, name) for bank, part in zip(banks, layers, strict=True)]
