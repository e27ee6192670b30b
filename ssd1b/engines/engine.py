"""What an engine is: one call of the UNet, with its own timestep and its own adapter for every row."""

from typing import Protocol

import torch
from torch import Tensor

from ssd1b.adapters.adapter import Adapter
from ssd1b.engines.bank import Layout

# B rows, C H W latent, T text tokens, D text width, E pooled width


class Engine(Protocol):
    """A UNet that is ready to run.

    Rows come and go on `device`, float32 unless said otherwise; sizes are any multiples of 8 pixels and may differ from
    call to call. A call on a GPU returns before the GPU is done and waits for nothing.
    """

    name: str
    """Backend, and precision where the backend chooses it: "torch", "openvino bf16"."""
    device: torch.device
    """Where row tensors lie."""
    slots: int
    """Slots of the LoRA bank, slot 0 (no adapter) included."""
    rank: int
    """The greatest adapter rank a slot holds."""
    layout: Layout
    """The layers an adapter may change."""

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
        """Return the predicted noise_BCHW. slot_B is int64; scale_B weighs each row's adapter."""
        ...

    def load_adapter(self, slot: int, adapter: Adapter | None) -> None:
        """Put an adapter into a slot (None empties it): waits for a running call, takes effect for the next.

        Raises:
            ValueError: slot 0 or past the last, a rank above the engine's, or a layer the engine does not adapt.
        """
        ...
