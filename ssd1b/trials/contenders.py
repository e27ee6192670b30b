"""What takes part in a contest of engines: plain diffusers, our engines, adapters of chance."""

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ssd1b.adapters.adapter import Adapter
from ssd1b.engines.checks import random_layers
from ssd1b.engines.engine import Engine
from ssd1b.trials.turns import Call

PLAIN = "diffusers"
SIZE = 0.05
"""Of an adapter's matrices; time does not depend on it."""


def plain_call(unet: UNet2DConditionModel, rows: tuple[Tensor, ...]) -> Call:
    """Return a call as diffusers' pipelines make it."""
    latents_BCHW, timestep_B, text_BTD, pooled_BE, time_ids_B6, *_ = rows
    added = {"text_embeds": pooled_BE, "time_ids": time_ids_B6}

    @torch.no_grad()
    def call() -> Tensor:
        noise_BCHW: Tensor = unet(latents_BCHW, timestep_B, text_BTD, added_cond_kwargs=added, return_dict=False)[0]
        return noise_BCHW

    return call


def engine_call(engine: Engine, rows: tuple[Tensor, ...]) -> Call:
    return lambda: engine(*rows)


def fill(engine: Engine, rank: int, number: int) -> None:
    """Put as many adapters into the bank, each of which changes every layer."""
    for slot in range(1, number + 1):
        engine.load_adapter(slot, Adapter(f"random-{slot}", random_layers(engine.layout, rank, SIZE, slot)))


def fused_into(unet: UNet2DConditionModel, adapter: Adapter) -> Call:
    """Return a call that loads and fuses an adapter as diffusers does, and takes it out again."""
    state = {}
    for path, (a_IR, b_RO) in adapter.layers.items():
        state[f"{path}.lora_A.weight"] = a_IR.T.contiguous()
        state[f"{path}.lora_B.weight"] = b_RO.T.contiguous()

    def call() -> None:
        unet.load_lora_adapter(dict(state), prefix=None, adapter_name="live")
        unet.fuse_lora()
        unet.unfuse_lora()
        unet.delete_adapters("live")
        unet.unload_lora()

    return call
