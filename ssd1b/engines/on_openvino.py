"""The engine on OpenVINO: the fastest on CPUs, in bfloat16 where the CPU computes it."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import openvino
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssd1b.engines.bank import Layout
from ssd1b.engines.on_onnx import Feed, OnnxEngine, without_adapters
from ssd1b.sampling.decode import to_pictures

Precision = Literal["auto", "f32"]
"""auto is what OpenVINO chooses for the CPU: bf16 where it has instructions for it, else f32."""


class OpenVinoEngine(OnnxEngine):
    """Two compiled graphs over one bank. Uses as many threads as torch does, so OMP_NUM_THREADS governs both."""

    def __init__(self, path: Path, layout: Layout, *, slots: int, rank: int, precision: Precision = "auto") -> None:
        super().__init__(layout, slots=slots, rank=rank)
        compiled = compile_graph(path, precision)
        self.name = f"openvino {precision_of(compiled)}"
        plain = without_adapters(onnx.load(path), layout)
        self.plain = compile_graph(plain.SerializeToString(), precision).create_infer_request()
        self.adapted = compiled.create_infer_request()
        for name, array in self.bank_feed.items():
            self.adapted.set_tensor(name, openvino.Tensor(array, shared_memory=True))

    def run_plain(self, feed: Feed) -> NDArray[np.float32]:
        """Run the graph without side paths."""
        return result(self.plain, feed)

    def run_adapted(self, feed: Feed) -> NDArray[np.float32]:
        """Run the graph with the bank, which the request already holds."""
        return result(self.adapted, feed)


class OpenVinoDecoder:
    """The VAE decoder, always in f32: bfloat16's eight bits would show as banding in flat colours."""

    def __init__(self, path: Path) -> None:
        self.compiled = compile_graph(path, "f32")

    def __call__(self, latents_BCHW: Tensor) -> Tensor:
        """Return uint8 pictures (B, height, width, 3)."""
        feed = {"latents": latents_BCHW.contiguous().numpy()}
        return to_pictures(torch.from_numpy(result(self.compiled.create_infer_request(), feed)))


def compile_graph(graph: Path | bytes, precision: Precision) -> Any:
    """Return a compiled model of an ONNX file or its bytes."""
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    if precision != "auto":
        config["INFERENCE_PRECISION_HINT"] = precision
    core = openvino.Core()
    return core.compile_model(core.read_model(graph), "CPU", config)


def precision_of(compiled: Any) -> str:
    """Return the precision that a compiled model computes in: "bf16", "f32"."""
    names = {"bfloat16": "bf16", "float32": "f32", "float16": "f16"}
    name = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return names.get(name, str(name))


def result(request: Any, feed: Feed) -> NDArray[np.float32]:
    output: NDArray[np.float32] = request.infer(feed, share_inputs=True)[0]
    return output
