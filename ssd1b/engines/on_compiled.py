"""The engine in compiled torch on a GPU: the fastest that needs nothing but torch.

A GPU waits for Python between the two thousand kernels of a UNet call; a CUDA graph sends them off at once. A graph is
of one shape, so it is captured per (batch bucket, size, length of text, with or without side paths) when first asked
for; a batch is padded up to its bucket with copies of its first row. Rows do not see each other, so padding changes no
row. Inside the graph runs what torch.compile makes of the UNet, or the plain UNet.

On a CPU nothing is captured: the same buckets, padding and buffers run eagerly, which is what the tests compare. The
GPU half of this file has not run on a GPU yet.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ssd1b.adapters.adapter import Adapter
from ssd1b.engines.bank import Bank
from ssd1b.engines.graph import AdaptedUNet, call, layout_of

# B rows, C H W latent, T text tokens, D text width, E pooled width

BUCKETS = (1, 2, 4, 8, 16, 32)
"""Rows of the captured graphs; guidance makes two rows of a picture."""
GRAPHS = 24
"""Captured graphs that are kept, the one used longest ago goes: each holds its activations."""
WARM_UPS = 3
"""Calls before a capture: compilation, algorithm choices and allocations must be over by then."""
Key = tuple[int, int, int, int, bool]
"""Rows, height and width of the latents, tokens, side paths."""


class CompiledEngine:
    """Runs a UNet (see `Engine`) that it owns from then on: its weights must stay where they are.

    Calls take turns by a lock; captured graphs read the bank where it lies, so a slot can be filled between two calls.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        *,
        slots: int = 9,
        rank: int = 8,
        convolutions: bool = False,
        compiled: bool = True,
    ) -> None:
        """Take a UNet; compiled=False captures it as it is, in seconds instead of minutes for each shape."""
        self.unet, self.slots, self.rank, self.device = unet.eval(), slots, rank, unet.device
        self.layout = layout_of(unet, convolutions)
        self.bank = Bank(self.layout, slots, rank, unet.device, unet.dtype)
        self.lock = threading.Lock()
        on_gpu = unet.device.type == "cuda"
        self.name = f"torch {'compiled' if compiled else 'captured'}" if on_gpu else "torch in buckets"
        self.inside: Callable[..., Any] = compiled_by_shape(self.run) if compiled and on_gpu else self.run
        # captured graphs take turns, so they can share their scratch memory; apart, each would keep its own
        self.capture = partial(captured, torch.cuda.graph_pool_handle()) if on_gpu else uncaptured
        self.graphs: OrderedDict[Key, Replay] = OrderedDict()

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
        """Return the predicted noise_BCHW (see `Engine`); more rows than the last bucket holds go in several parts."""
        rows = (latents_BCHW, timestep_B, text_BTD, pooled_BE, time_ids_B6, slot_B, scale_B)
        most = BUCKETS[-1]
        parts = [tuple(row[i : i + most] for row in rows) for i in range(0, len(latents_BCHW), most)]
        with self.lock:
            made = [self.part(part) for part in parts]
        return made[0] if len(made) == 1 else torch.cat(made)

    def part(self, rows: tuple[Tensor, ...]) -> Tensor:
        """Return the noise of rows that one bucket holds."""
        latents_BCHW, text_BTD, slot_B = rows[0], rows[2], rows[5]
        bucket = bucket_of(len(latents_BCHW))
        sides = self.bank.needed(slot_B)
        key = (bucket, *latents_BCHW.shape[2:], text_BTD.shape[1], sides)
        padded = [pad(row, bucket) for row in rows]
        if key not in self.graphs:
            buffers = [row.to(self.device, copy=True) for row in padded]
            self.graphs[key] = Replay(buffers, self.capture(lambda: self.inside(buffers, sides)))
            if len(self.graphs) > GRAPHS:
                self.graphs.popitem(last=False)
        self.graphs.move_to_end(key)
        return self.graphs[key](padded)[: len(latents_BCHW)]

    def run(self, buffers: list[Tensor], sides: bool) -> Tensor:
        """Return the noise, float32, of a bucket of rows."""
        if sides:
            return AdaptedUNet(self.unet, self.layout)(*buffers, *self.bank.arrays)  # type: ignore[no-any-return]
        return call(self.unet, *buffers[:5]).float()

    def load_adapter(self, slot: int, adapter: Adapter | None) -> None:
        """Put an adapter into a slot (see `Engine`)."""
        layers, name = (adapter.layers, adapter.name) if adapter is not None else (None, "")
        staged = self.bank.stage(slot, layers, name)
        with self.lock:
            self.bank.write(slot, staged)


class Replay:
    """One shape: the buffers that its graph reads, and how to run it on what they hold."""

    def __init__(self, buffers: list[Tensor], run: Callable[[], Tensor]) -> None:
        self.buffers, self.run = buffers, run

    def __call__(self, rows: list[Tensor]) -> Tensor:
        """Return a copy of what comes out, the next call's to overwrite."""
        for buffer, row in zip(self.buffers, rows, strict=True):
            buffer.copy_(row, non_blocking=True)
        return self.run().clone()


def bucket_of(rows: int) -> int:
    """Return the smallest bucket that holds so many rows.

    Raises:
        ValueError: no rows, or more than the last bucket holds.
    """
    if not 1 <= rows <= BUCKETS[-1]:
        raise ValueError(f"{rows} rows: a call has 1 to {BUCKETS[-1]}")
    return next(bucket for bucket in BUCKETS if bucket >= rows)


def pad(row_B: Tensor, bucket: int) -> Tensor:
    """Return a row input of a bucket's length, its first row again and again at the end."""
    return torch.cat([row_B, row_B[:1].expand(bucket - len(row_B), *row_B.shape[1:])]) if len(row_B) < bucket else row_B


def compiled_by_shape(run: Callable[..., Tensor], backend: str | Callable[..., Any] = "inductor") -> Callable[..., Any]:
    """Return run, compiled anew for every shape that comes.

    Without a word torch runs a function uncompiled from its ninth shape on; nine sizes in six buckets are more than
    that, and so are two engines in one process, which it counts together.
    """
    limit = 2 * GRAPHS * len(BUCKETS)
    return torch.compile(run, dynamic=False, backend=backend, recompile_limit=limit, isolate_recompiles=True)  # type: ignore[call-overload, no-any-return]


def captured(pool: Any, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Return what replays a CUDA graph of run (PyTorch, "CUDA semantics", section CUDA Graphs).

    Graphs of one pool overwrite each other's results: a caller copies one before it replays another.
    """
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UPS):
            run()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        out = run()

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay


def uncaptured(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Return run: a CPU has no graphs to capture."""
    return run
