"""The engine on ONNX Runtime: float32 on any CPU, where OpenVINO is not installed."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssd1b.engines.bank import Layout
from ssd1b.engines.on_onnx import Feed, OnnxEngine, without_adapters
from ssd1b.sampling.decode import to_pictures


class OnnxRuntimeEngine(OnnxEngine):
    """Two sessions over one bank. Uses as many threads as torch does, so OMP_NUM_THREADS governs both."""

    name = "onnxruntime f32"

    def __init__(self, path: Path, layout: Layout, *, slots: int, rank: int) -> None:
        super().__init__(layout, slots=slots, rank=rank)
        self.adapted = session(path)
        self.plain = session(without_adapters(onnx.load(path), layout).SerializeToString())

    def run_plain(self, feed: Feed) -> NDArray[np.float32]:
        """Run the graph without side paths."""
        return result(self.plain, feed)

    def run_adapted(self, feed: Feed) -> NDArray[np.float32]:
        """Run the graph with the bank."""
        return result(self.adapted, feed | self.bank_feed)


class OnnxRuntimeDecoder:
    """The VAE decoder."""

    def __init__(self, path: Path) -> None:
        self.session = session(path)

    def __call__(self, latents_BCHW: Tensor) -> Tensor:
        """Return uint8 pictures (B, height, width, 3)."""
        return to_pictures(torch.from_numpy(result(self.session, {"latents": latents_BCHW.contiguous().numpy()})))


def session(graph: Path | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def result(session: onnxruntime.InferenceSession, feed: Feed) -> NDArray[np.float32]:
    output: NDArray[np.float32] = session.run(None, feed)[0]
    return output
