"""What the two ONNX backends share: the row inputs by name, the bank, and which of two graphs a call needs.

A call none of whose rows has an adapter runs the graph without side paths: at small widths they cost as much as half
of the UNet. That graph is cut out of the exported one, so the bundle holds the weights once.
"""

import threading
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssd1b.adapters.adapter import Adapter
from ssd1b.engines.bank import Bank, Layout
from ssd1b.engines.graph import ROW_INPUTS, bank_inputs

# B rows, C H W latent, T text tokens, D text width, E pooled width

Feed = dict[str, NDArray[Any]]
ADAPTER_INPUTS = ("slot", "scale")


class OnnxEngine(ABC):
    """An engine whose backend runs ONNX graphs on numpy arrays."""

    name: str

    def __init__(self, layout: Layout, *, slots: int, rank: int) -> None:
        self.layout, self.slots, self.rank = layout, slots, rank
        self.bank = Bank(layout, slots, rank)
        self.lock = threading.Lock()

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
        feed = {name: row.contiguous().numpy() for name, row in zip(ROW_INPUTS, rows, strict=True)}
        with self.lock:
            if slot_B.any():
                return torch.from_numpy(self.run_adapted(feed))
            return torch.from_numpy(self.run_plain({k: v for k, v in feed.items() if k not in ADAPTER_INPUTS}))

    def load_adapter(self, slot: int, adapter: Adapter | None) -> None:
        """Put an adapter into a slot (see `Engine`). The backends read the bank's memory, so writing it is the swap."""
        with self.lock:
            self.bank.put(slot, adapter)

    @property
    def bank_feed(self) -> Feed:
        return dict(zip(bank_inputs(self.layout), self.bank.arrays, strict=True))

    @abstractmethod
    def run_plain(self, feed: Feed) -> NDArray[np.float32]:
        """Run the graph without side paths; the result is the caller's to keep."""

    @abstractmethod
    def run_adapted(self, feed: Feed) -> NDArray[np.float32]:
        """Run the graph with the bank; the result is the caller's to keep."""


def without_adapters(model: onnx.ModelProto, layout: Layout) -> onnx.ModelProto:
    """Return the exported UNet without its side paths: same weights, same result where every slot is 0.

    Whatever is computed from the bank goes; where it is added to a layer's output, that output takes the sum's place.
    """
    removed = {*bank_inputs(layout), *ADAPTER_INPUTS}
    of_bank, renamed, kept = set(removed), dict[str, str](), []
    for node in model.graph.node:  # in topological order, as ONNX demands
        tainted = [name for name in node.input if name in of_bank]
        if node.op_type == "Add" and len(tainted) == 1:
            clean = next(name for name in node.input if name not in of_bank)
            renamed[node.output[0]] = renamed.get(clean, clean)
        elif tainted:
            of_bank.update(node.output)
        else:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [renamed.get(name, name) for name in node.input]
            kept.append(copy)
    live, used = {value.name for value in model.graph.output}, []
    for node in reversed(kept):  # the constants that only the side paths read go too
        if live & set(node.output):
            used.append(node)
            live.update(node.input)
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    del plain.graph.node[:]
    plain.graph.node.extend(reversed(used))
    inputs = [value for value in plain.graph.input if value.name not in removed]
    del plain.graph.input[:]
    plain.graph.input.extend(inputs)
    assert not any(value.name in of_bank | renamed.keys() for value in plain.graph.output)
    return plain
