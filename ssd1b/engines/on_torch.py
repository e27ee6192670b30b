"""The engine in eager torch: any UNet in memory, on any device. The reference for the other backends."""

import threading

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ssd1b.adapters.adapter import Adapter
from ssd1b.engines.bank import Bank
from ssd1b.engines.graph import adapted, call, layout_of

# B rows, C H W latent, T text tokens, D text width, E pooled width


class TorchEngine:
    """Runs a UNet where it lies and in its precision; the UNet is not changed and may be trained meanwhile."""

    name = "torch"

    def __init__(
        self, unet: UNet2DConditionModel, *, slots: int = 9, rank: int = 8, convolutions: bool = False
    ) -> None:
        """Take a UNet, and room for adapters beside it; convolutions makes room for those of its convolutions too."""
        self.unet, self.slots, self.rank, self.device = unet, slots, rank, unet.device
        self.layout = layout_of(unet, convolutions)
        self.bank = Bank(self.layout, slots, rank, unet.device, unet.dtype)
        self.lock = threading.Lock()

    @torch.no_grad()
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
        rows = (latents_BCHW, timestep_B, text_BTD, pooled_BE, time_ids_B6, slot_B, scale_B)
        conditions = [row.to(self.device) for row in rows[:5]]
        with self.lock:
            if not self.bank.needed(slot_B):
                return call(self.unet, *conditions).float()
            slot_B, scale_B = slot_B.to(self.device), scale_B.to(self.device)
            with adapted(self.unet, self.layout, slot_B, scale_B, self.bank.arrays):
                return call(self.unet, *conditions).float()

    def load_adapter(self, slot: int, adapter: Adapter | None) -> None:
        """Put an adapter into a slot (see `Engine`)."""
        layers, name = (adapter.layers, adapter.name) if adapter is not None else (None, "")
        staged = self.bank.stage(slot, layers, name)
        with self.lock:
            self.bank.write(slot, staged)
