"""ONNX Runtime: float32 on any CPU, where OpenVINO is not installed."""

from pathlib import Path
from typing import Any

import onnxruntime
import torch
from numpy.typing import NDArray

from ssd1b.engines.on_onnx import Feed, Graph


class OnnxRuntimeGraph(Graph):
    """A session. Uses as many threads as torch does, so OMP_NUM_THREADS governs both; safe to call from several."""

    precision = "f32"

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.held: Feed = {}

    def __call__(self, feed: Feed) -> list[NDArray[Any]]:
        """Run the graph (see `Graph`)."""
        return list(self.session.run(None, feed | self.held))

    def hold(self, feed: Feed) -> None:
        """Keep arrays as inputs (see `Graph`)."""
        self.held = feed
