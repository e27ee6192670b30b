"""A deserialised plan as a function of tensors: rows in, rows out, at fixed addresses behind captured CUDA graphs.

For every shape (batch bucket, size, tokens) that is met there is one execution context with buffers and, on TensorRT,
one captured graph: a graph holds for the context it was captured from, in the state it was captured in. From 10.0 on
contexts may share a profile. They also share one block of scratch memory here, since calls take turns.

Never ran on a GPU; the tests run it on a stand-in for the library.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssd1b.engines.tensorrt.buffers import Recent, Shape, Span, bucket_of, chunks, fill, profile_of
from ssd1b.engines.tensorrt.ensure import Loaded
from ssd1b.engines.tensorrt.lane import Call, Lane
from ssd1b.engines.tensorrt.runtime_cache import RuntimeCache

KEPT = 24
"""Shapes ready at once: nine sizes do not come in six buckets each at the same time."""

Shapes = tuple[tuple[str, Shape], ...]
"""Shapes of the row inputs, the batch a bucket: what a captured graph is for."""


@dataclass(frozen=True)
class Prepared:
    """One shape, ready to run. The context must outlive the graph captured from it."""

    context: Any
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    replay: Call


class Runner:
    """Runs a plan. Calls from several threads take turns."""

    def __init__(
        self,
        loaded: Loaded,
        lane: Lane,
        resident: Mapping[str, Tensor] | None = None,
        kept: int = KEPT,
    ) -> None:
        """Take a plan. resident are inputs that stay on the device between calls, by name: the LoRA bank. kept is how
        many shapes stay ready.

        Raises:
            ValueError: the plan has no such inputs, or other types than the resident tensors.
        """
        self.loaded, self.lane, self.resident = loaded, lane, dict(resident or {})
        self.library, self.engine = loaded.library, loaded.engine
        mode = self.library.module.TensorIOMode
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        self.inputs = [name for name in names if self.engine.get_tensor_mode(name) == mode.INPUT]
        self.outputs = [name for name in names if self.engine.get_tensor_mode(name) == mode.OUTPUT]
        self.types = {name: self.library.dtype(self.engine.get_tensor_dtype(name)) for name in names}
        for name, tensor in self.resident.items():
            if self.types.get(name) != tensor.dtype:
                raise ValueError(f"input {name} of the plan is {self.types.get(name, 'missing')}, not {tensor.dtype}: "
                                 f"build the plan from this bundle's graph")  # fmt: skip
        self.rows = [name for name in self.inputs if name not in self.resident]
        self.profiles: list[dict[str, Span]] = [
            {name: ends(self.engine.get_tensor_profile_shape(name, number)) for name in self.inputs}
            for number in range(self.engine.num_optimization_profiles)
        ]
        self.most_rows = max(spans[self.rows[0]][1][0] for spans in self.profiles)
        self.config = self.library.runtime_config(self.engine)
        self.cache = RuntimeCache(self.config, loaded.kernels) if self.config is not None else None
        self.scratch = torch.empty(max(1, self.engine.device_memory_size_v2), dtype=torch.uint8, device=lane.device)
        self.prepared: Recent[Shapes, Prepared] = Recent(self.prepare, kept, lane.wait)
        self.lock = threading.Lock()

    def __call__(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs for rows by name of input, on the lane's device, the caller's to keep.

        More rows than the plan takes at once go in turns. Returns before the GPU is done.

        Raises:
            ValueError: a shape that the plan was not built for.
        """
        count = len(rows[self.rows[0]])
        with self.lock, self.lane.run():
            parts = [self.run({name: rows[name][part] for name in self.rows}) for part in chunks(count, self.most_rows)]
            outputs = {name: torch.cat([part[name] for part in parts]) for name in self.outputs}
        return {name: self.lane.hand_over(tensor) for name, tensor in outputs.items()}

    def run(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        count = len(rows[self.rows[0]])
        bucket = bucket_of(count, self.most_rows)
        ready = self.prepared[tuple((name, (bucket, *row.shape[1:])) for name, row in rows.items())]
        for name, row in rows.items():
            fill(ready.inputs[name], row)
        ready.replay()
        return {name: tensor[:count].clone() for name, tensor in ready.outputs.items()}  # the next call writes there

    def prepare(self, shapes: Shapes) -> Prepared:
        """Make a context with buffers for a shape, run it once, and capture it."""
        all_shapes = dict(shapes) | {name: tuple(tensor.shape) for name, tensor in self.resident.items()}
        number = profile_of(all_shapes, self.profiles)
        context = self.library.context(self.engine, self.config)
        done(context.set_optimization_profile_async(number, self.lane.handle), "choosing the profile")
        context.set_device_memory(self.scratch.data_ptr(), self.scratch.numel())
        for name, shape in all_shapes.items():
            done(context.set_input_shape(name, shape), f"setting the shape of {name}")
        unknown = context.infer_shapes()
        assert not unknown, f"shapes of {unknown} do not follow from the inputs'"
        inputs = {name: self.buffer(name, shape) for name, shape in shapes}
        outputs = {name: self.buffer(name, tuple(context.get_tensor_shape(name))) for name in self.outputs}
        for name, tensor in (inputs | outputs | self.resident).items():
            done(context.set_tensor_address(name, tensor.data_ptr()), f"setting the address of {name}")

        def execute() -> None:
            done(context.execute_async_v3(self.lane.handle), "running the plan")

        execute()  # what it does lazily for new shapes must not be captured (TensorRT, "CUDA Graphs")
        replay = execute if self.library.captures_itself else self.lane.capture(execute)
        if self.cache is not None:
            self.cache.keep()
        return Prepared(context, inputs, outputs, replay)

    def buffer(self, name: str, shape: Shape) -> Tensor:
        return torch.zeros(shape, dtype=self.types[name], device=self.lane.device)


def ends(shapes: Any) -> Span:
    """Return the least and the most of a profile's three shapes."""
    least, _, most = shapes
    return tuple(least), tuple(most)


def done(worked: bool, what: str) -> None:
    """Refuse to go on where the library says no: it tells by a value, and the reason by its log."""
    if not worked:
        raise RuntimeError(f"{what} failed: the library's reason is in the log")
