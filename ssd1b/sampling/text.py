"""The text towers behind one call: windows of tokens in, hidden states and the pooled projection out.

Which states those are is the line's: SDXL's UNet attends to the penultimate hidden states of both towers side by side,
and is told the pooled projection of the second (arXiv 2307.01952, section 2.1); the SD-1.5 line's to the last hidden
state of its one tower, and nothing is pooled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

# B windows, W tokens of a window with its two markers, D widths of the towers side by side, E width of the pooled
# embedding (0 without one)

Tower: TypeAlias = CLIPTextModel | CLIPTextModelWithProjection


class TextEngine(Protocol):
    """Text towers that are ready to run. Calls may come from any thread, also while a UNet or a VAE runs."""

    @property
    def device(self) -> torch.device:
        """Where the states lie."""
        ...

    @property
    def window(self) -> int:
        """Tokens of a window, its two markers counted."""
        ...

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the towers' hidden states."""
        ...

    @property
    def pooled(self) -> int:
        """Width of the pooled embedding, 0 without one."""
        ...

    def __call__(self, ids: Sequence[Tensor], slot_B: Tensor | None, scale_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return (text_BWD, pooled_BE) of ids_BW, int64, one for each tower.

        slot_B and scale_B choose and weigh each window's text adapter; None means none.
        """
        ...


@dataclass(frozen=True)
class Towers:
    """The towers in torch, where they lie and in their precision, without adapters."""

    towers: tuple[Tower, ...]

    @property
    def device(self) -> torch.device:
        """Where the towers lie."""
        return self.towers[0].device  # type: ignore[no-any-return]

    @property
    def window(self) -> int:
        """Tokens of a window."""
        return int(self.towers[0].config.max_position_embeddings)

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the hidden states."""
        return tuple(int(tower.config.hidden_size) for tower in self.towers)

    @property
    def pooled(self) -> int:
        """Width of the pooled embedding."""
        return int(self.towers[-1].config.projection_dim) if len(self.towers) > 1 else 0

    def __call__(
        self, ids: Sequence[Tensor], slot_B: Tensor | None = None, scale_B: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (text_BWD, pooled_BE) of ids_BW (see `TextEngine`)."""
        assert slot_B is None or scale_B is None or not slot_B.any(), "plain towers hold no adapters"
        return hidden_and_pooled(self.towers, ids)


def hidden_and_pooled(towers: Sequence[Tower], ids: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return (text_BWD, pooled_BE) of ids_BW, one for each tower, where the towers lie and in their precision."""
    outputs = [
        tower(ids_BW.to(tower.device), output_hidden_states=True) for tower, ids_BW in zip(towers, ids, strict=True)
    ]
    if len(outputs) == 1:
        text_BWD: Tensor = outputs[0].last_hidden_state
        return text_BWD, text_BWD.new_zeros(len(text_BWD), 0)
    pooled_BE: Tensor = outputs[-1].text_embeds
    return torch.cat([output.hidden_states[-2] for output in outputs], dim=-1), pooled_BE
