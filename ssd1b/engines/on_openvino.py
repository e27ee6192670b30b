"""OpenVINO: the fastest on CPUs, in bfloat16 where the CPU computes it."""

import threading
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino
import torch
from numpy.typing import NDArray

from ssd1b.engines.on_onnx import Feed, Graph
from ssd1b.engines.steady import Steady

Precision = Literal["auto", "f32"]
"""auto is what OpenVINO chooses for the CPU: bf16 where it has instructions for it, else f32."""


class OpenVinoGraph(Graph):
    """A compiled model and its one request, which callers take in turns.

    Uses as many threads as torch does, so OMP_NUM_THREADS governs both.
    """

    def __init__(self, path: Path, precision: Precision, steady: bool = False) -> None:
        """Compile a graph. steady: rows come and go from call to call, so batches may be filled up (`Steady`)."""
        config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        if precision != "auto":
            config["INFERENCE_PRECISION_HINT"] = precision
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(path), "CPU", config)
        names = {"bfloat16": "bf16", "float32": "f32", "float16": "f16"}
        name = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.precision = names.get(name, str(name))
        self.request = compiled.create_infer_request()
        self.lock = threading.Lock()
        self.steady = Steady() if steady else None

    def __call__(self, feed: Feed) -> list[NDArray[Any]]:
        """Run the graph (see `Graph`)."""
        with self.lock:
            if self.steady is None:
                return self.run(feed)
            count = len(next(iter(feed.values())))
            rows = self.steady.rows(count, tuple(array.shape[1:] for array in feed.values()))
            more = {name: filled(array, rows) for name, array in feed.items()} if rows > count else feed
            began = time.perf_counter()
            outputs = self.run(more)
            self.steady.took(time.perf_counter() - began)
            return [output[:count] for output in outputs]

    def run(self, feed: Feed) -> list[NDArray[Any]]:
        return list(self.request.infer(feed, share_inputs=True).values())

    def hold(self, feed: Feed) -> None:
        """Keep arrays as inputs (see `Graph`)."""
        for name, array in feed.items():
            self.request.set_tensor(name, openvino.Tensor(array, shared_memory=True))


def filled(array: NDArray[Any], rows: int) -> NDArray[Any]:
    """Return so many rows, the last one repeated."""
    return np.concatenate([array, np.repeat(array[-1:], rows - len(array), axis=0)])
