"""What the two ONNX backends share: the row inputs by name, the bank, and which of two graphs a call needs.

A call none of whose rows has an adapter runs the graph without side paths: at small widths they cost as much as half
of the UNet. A text tower is the same thing with other rows, so both stand on `BankedGraph`.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ssd1b.adapters.adapter import Adapter
from ssd1b.engines.bank import Bank, Layout
from ssd1b.engines.graph import ROW_INPUTS, TOWER_INPUTS, bank_inputs
from ssd1b.engines.text import staged_text
from ssd1b.sampling.decode import to_pictures

# B rows, C H W latent, T text tokens, W tokens of a window, D text width, E pooled width

Feed = dict[str, NDArray[Any]]
Arrays = Sequence[NDArray[Any]]
CPU = torch.device("cpu")


class Graph(ABC):
    """One compiled ONNX graph. Calls may come from several threads at once."""

    precision: str
    """What it computes in: "f32", "bf16"."""

    @abstractmethod
    def __call__(self, feed: Feed) -> list[NDArray[Any]]:
        """Return its outputs, which are the caller's to keep."""

    @abstractmethod
    def hold(self, feed: Feed) -> None:
        """Keep arrays as inputs of every call; the graph reads their memory, so writing them changes the next call."""


class BankedGraph:
    """A graph with a bank as inputs and its twin without."""

    def __init__(self, adapted: Graph, plain: Graph, layout: Layout, slots: int, rank: int, dtype: torch.dtype) -> None:
        self.adapted, self.plain = adapted, plain
        self.bank = Bank(layout, slots, rank, dtype=dtype)
        self.adapted.hold(
            {name: array.numpy() for name, array in zip(bank_inputs(layout), self.bank.arrays, strict=True)}
        )
        self.lock = threading.Lock()

    def __call__(self, rows: dict[str, Tensor]) -> list[Tensor]:
        """Return the outputs for rows by name of input, "slot" and "scale" among them."""
        feed = {name: row.cpu().contiguous().numpy() for name, row in rows.items()}
        with self.lock:
            if self.bank.needed(rows["slot"]):
                return [torch.from_numpy(out) for out in self.adapted(feed)]
            del feed["slot"], feed["scale"]
            return [torch.from_numpy(out) for out in self.plain(feed)]

    def write(self, slot: int, staged: Sequence[Tensor] | None) -> None:
        """Fill a slot between two calls (see `Bank.write`)."""
        with self.lock:
            self.bank.write(slot, staged)


class OnnxEngine:
    """An engine (see `Engine`) on a backend for ONNX graphs."""

    device = CPU

    def __init__(self, name: str, graph: BankedGraph) -> None:
        self.name, self.graph = name, graph
        self.layout, self.slots, self.rank = graph.bank.layout, graph.bank.slots, graph.bank.rank

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
        return self.graph(dict(zip(ROW_INPUTS, rows, strict=True)))[0]

    def load_adapter(self, slot: int, adapter: Adapter | None) -> None:
        """Put an adapter into a slot (see `Engine`)."""
        layers, name = (adapter.layers, adapter.name) if adapter is not None else (None, "")
        self.graph.write(slot, self.graph.bank.stage(slot, layers, name))


class OnnxText:
    """Text towers (see `AdaptedText`) on a backend for ONNX graphs; each graph has a lock of its own."""

    device = CPU

    def __init__(self, graphs: Sequence[BankedGraph], *, window: int, widths: Sequence[int], pooled: int) -> None:
        self.graphs, self.window, self.widths, self.pooled = tuple(graphs), window, tuple(widths), pooled
        self.layouts = tuple(graph.bank.layout for graph in graphs)
        self.slots, self.rank = graphs[0].bank.slots, graphs[0].bank.rank

    def __call__(self, ids: Sequence[Tensor], slot_B: Tensor | None, scale_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return (text_BWD, pooled_BE) of ids_BW (see `TextEngine`)."""
        slot_B = torch.zeros(len(ids[0]), dtype=torch.int64) if slot_B is None else slot_B
        scale_B = torch.ones(len(ids[0])) if scale_B is None else scale_B
        outputs = [
            graph(dict(zip(TOWER_INPUTS, (ids_BW, slot_B, scale_B), strict=True)))
            for graph, ids_BW in zip(self.graphs, ids, strict=True)
        ]
        return torch.cat([hidden_BWD for hidden_BWD, *_ in outputs], dim=-1), outputs[-1][1]

    def load_adapter(self, slot: int, adapter: Adapter | None) -> None:
        """Put an adapter's text layers into a slot (see `AdaptedText`)."""
        staged = staged_text([graph.bank for graph in self.graphs], slot, adapter)
        for graph, arrays in zip(self.graphs, staged, strict=True):
            graph.write(slot, arrays)


class OnnxDecoder:
    """The VAE decoder on a backend for ONNX graphs."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def __call__(self, latents_BCHW: Tensor) -> Tensor:
        """Return uint8 pictures (B, height, width, 3)."""
        return to_pictures(torch.from_numpy(self.graph({"latents": latents_BCHW.cpu().contiguous().numpy()})[0]))


class OnnxEncoder:
    """The VAE encoder on a backend for ONNX graphs."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def __call__(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the scaled latents of pixels in [-1, 1]."""
        mean, std = self.graph({"pixels": pixels_BCHW.cpu().contiguous().numpy()})
        return torch.from_numpy(mean), torch.from_numpy(std)
