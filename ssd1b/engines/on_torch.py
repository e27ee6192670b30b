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

    def __init__(self, unet: UNet2DConditionModel, *, slots: int = 9, rank: int = 8) -> None:
        self.unet, self.slots, self.rank = unet, slots, rank
        self.layout = layout_of(unet)
        self.bank = Bank(self.layout, slots, rank)
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
        device, dtype = self.unet.device, self.unet.dtype
        timestep_B, time_ids_B6 = timestep_B.to(device), time_ids_B6.to(device)  # too large for 16-bit floats
        latents_BCHW, text_BTD, pooled_BE = (x.to(device, dtype) for x in (latents_BCHW, text_BTD, pooled_BE))
        conditions = (latents_BCHW, timestep_B, text_BTD, pooled_BE, time_ids_B6)
        with self.lock:
            if not slot_B.any():
                return call(self.unet, *conditions).float().cpu()
            bank = [torch.from_numpy(array).to(device, dtype) for array in self.bank.arrays]
            with adapted(self.unet, self.layout, slot_B.to(device), scale_B.to(device, dtype), bank):
                return call(self.unet, *conditions).float().cpu()

    def load_adapter(self, slot: int, adapter: Adapter | None) -> None:
        """Put an adapter into a slot (see `Engine`)."""
        with self.lock:
            self.bank.put(slot, adapter)
