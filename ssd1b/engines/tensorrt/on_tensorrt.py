"""The engine, the VAE decoder and the text towers on TensorRT plans.

Never ran on a GPU: the tests run it against a stand-in for the library, and really build the plans it would load.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ssd1b.adapters.adapter import Adapter
from ssd1b.engines.bank import Bank, Layout
from ssd1b.engines.graph import ROW_INPUTS, TOWER_INPUTS, bank_inputs
from ssd1b.engines.tensorrt.ensure import Loaded
from ssd1b.engines.tensorrt.lane import Lane, lane_on
from ssd1b.engines.tensorrt.runner import Runner
from ssd1b.engines.text import staged_text
from ssd1b.sampling.decode import to_pictures

# B rows, C H W latent, T text tokens, W tokens of a window, D text width, E pooled width


class BankedRunner:
    """A plan whose LoRA bank lies on the device and is written slot by slot beside the running steps."""

    def __init__(self, loaded: Loaded, lane: Lane, layout: Layout, *, slots: int, rank: int) -> None:
        """Take a plan of a graph with a bank of this layout.

        Raises:
            ValueError: see `Runner`.
        """
        types = {name: loaded.library.dtype(loaded.engine.get_tensor_dtype(name)) for name in bank_inputs(layout)}
        precision = next(iter(types.values()), torch.float32)
        self.lane = lane
        self.bank = Bank(layout, slots, rank, lane.device, precision)
        resident: Mapping[str, Tensor] = dict(zip(bank_inputs(layout), self.bank.arrays, strict=True))
        self.runner = Runner(loaded, lane, resident)
        self.precision = {torch.float16: "f16", torch.bfloat16: "bf16"}.get(precision, "f32")

    def __call__(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs (see `Runner`)."""
        return self.runner(rows)

    def write(self, slot: int, staged: Sequence[Tensor] | None) -> None:
        """Fill a slot (see `Bank.write`): after the running step, before the next, neither waited for here."""
        with self.runner.lock, self.lane.upload():
            self.bank.write(slot, staged)


class TensorRtEngine:
    """The UNet (see `Engine`)."""

    def __init__(
        self,
        loaded: Loaded,
        layout: Layout,
        *,
        slots: int,
        rank: int,
        device: torch.device | str = "cuda",
        plain: Loaded | None = None,
    ) -> None:
        """Take the UNet's plan, and that of its graph without side paths if its weights are to be resident too.

        With `plain`, calls without adapters skip the side paths, at the price of a second copy of the weights.

        Raises:
            ValueError: see `Runner`.
        """
        lane = lane_on(device)
        self.graph = BankedRunner(loaded, lane, layout, slots=slots, rank=rank)
        self.plain = Runner(plain, lane) if plain else None
        self.name = f"{loaded.library.name} {self.graph.precision}"
        self.device, self.layout, self.slots, self.rank = lane.device, layout, slots, rank

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
        values = (latents_BCHW, timestep_B, text_BTD, pooled_BE, time_ids_B6, slot_B, scale_B)
        rows = dict(zip(ROW_INPUTS, values, strict=True))
        if self.plain is not None and not self.graph.bank.needed(slot_B):
            return self.plain(rows)["noise"]
        return self.graph(rows)["noise"]

    def load_adapter(self, slot: int, adapter: Adapter | None) -> None:
        """Put an adapter into a slot (see `Engine`)."""
        layers, name = (adapter.layers, adapter.name) if adapter is not None else (None, "")
        self.graph.write(slot, self.graph.bank.stage(slot, layers, name))


class TensorRtDecoder:
    """The VAE decoder, on streams of its own: it may run while the UNet does."""

    def __init__(self, loaded: Loaded, device: torch.device | str = "cuda") -> None:
        self.runner = Runner(loaded, lane_on(device))

    def __call__(self, latents_BCHW: Tensor) -> Tensor:
        """Return uint8 pictures (B, height, width, 3) on the CPU."""
        return to_pictures(self.runner({"latents": latents_BCHW})["pixels"])


class TensorRtText:
    """Text towers (see `AdaptedText`), each on streams of its own."""

    def __init__(
        self,
        towers: Sequence[tuple[Loaded, Layout]],
        *,
        slots: int,
        rank: int,
        window: int,
        widths: Sequence[int],
        pooled: int,
        device: torch.device | str = "cuda",
    ) -> None:
        """Take the plan and the layout of each tower.

        Raises:
            ValueError: see `Runner`.
        """
        self.graphs = tuple(
            BankedRunner(loaded, lane_on(device), layout, slots=slots, rank=rank) for loaded, layout in towers
        )
        self.device, self.layouts = torch.device(device), tuple(layout for _, layout in towers)
        self.slots, self.rank, self.window, self.widths, self.pooled = slots, rank, window, tuple(widths), pooled

    def __call__(
        self, ids: Sequence[Tensor], slot_B: Tensor | None = None, scale_B: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (text_BWD, pooled_BE) of ids_BW (see `TextEngine`)."""
        slot_B = torch.zeros(len(ids[0]), dtype=torch.int64) if slot_B is None else slot_B
        scale_B = torch.ones(len(ids[0])) if scale_B is None else scale_B
        outputs = [
            graph(dict(zip(TOWER_INPUTS, (ids_BW, slot_B, scale_B), strict=True)))
            for graph, ids_BW in zip(self.graphs, ids, strict=True)
        ]
        hidden_BWD = torch.cat([output["hidden"] for output in outputs], dim=-1)
        return hidden_BWD, outputs[-1].get("pooled", hidden_BWD.new_zeros(len(hidden_BWD), 0))

    def load_adapter(self, slot: int, adapter: Adapter | None) -> None:
        """Put an adapter's text layers into a slot (see `AdaptedText`)."""
        staged = staged_text([graph.bank for graph in self.graphs], slot, adapter)
        for graph, arrays in zip(self.graphs, staged, strict=True):
            graph.write(slot, arrays)
