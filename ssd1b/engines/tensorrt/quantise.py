"""FP8 and INT8 by explicit quantisation: NVIDIA ModelOpt puts Q/DQ nodes into the graph, the builder fuses them.

Written against the documentation of `nvidia-modelopt` (modelopt.onnx.quantization.quantize) and never run: the package
is not installed where this was written. TensorRT 11 knows no other way to eight bits. The LoRA side paths stay in the
graph's own precision, so that an adapter is added to a quantised base without a rebuild.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ssd1b.engines.tensorrt.inputs import inputs_of, outside, read

if TYPE_CHECKING:
    from ssd1b.engines.tensorrt.options import Quantise

OPERATORS = ["Conv", "Gemm", "MatMul"]


def quantised(graph: Path, how: "Quantise", folder: Path) -> Path:
    """Return a copy of the graph, in folder, with Q/DQ nodes around its convolutions and matrix products.

    Raises:
        ValueError: ModelOpt is not installed, or the calibration lacks an input of the graph.
    """
    inputs = inputs_of(graph)
    with np.load(how.calibration, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if missing := sorted(inputs.keys() - arrays.keys()):
        raise ValueError(f"{how.calibration} has no {', '.join(missing)}: keep an array for every input of "
                         f"{graph.name}, the bank's included (zeros do)")  # fmt: skip
    try:
        quantization = importlib.import_module("modelopt.onnx.quantization")
    except ModuleNotFoundError as error:
        raise ValueError(f"{how.mode} needs ModelOpt ({error}): `pip install 'nvidia-modelopt[onnx]'`") from error
    out = folder / f"{graph.stem}-{how.mode}.onnx"
    quantization.quantize(
        str(graph),
        quantize_mode=how.mode,
        calibration_data={name: arrays[name] for name in inputs},
        calibration_method="max" if how.mode == "fp8" else "entropy",
        calibration_eps=["cuda:0", "cpu"],
        op_types_to_quantize=OPERATORS,
        nodes_to_exclude=sorted(side_paths(graph)),
        use_external_data_format=any(True for _ in outside(graph)),
        output_path=str(out),
        high_precision_dtype="fp16" if any(value.dtype == "FLOAT16" for value in inputs.values()) else "fp32",
    )
    return out


def side_paths(graph: Path) -> set[str]:
    """Return the names of the nodes that compute with the LoRA bank: all that follows from its inputs, up to the sum.

    The sum itself belongs to the layer: what is added to it has no bank in it.
    """
    of_bank = {name for name in inputs_of(graph) if name.startswith(("a_", "b_")) or name in ("slot", "scale")}
    names = set()
    for node in read(graph).graph.node:  # in topological order, as ONNX demands
        tainted = [name for name in node.input if name in of_bank]
        if tainted and not (node.op_type == "Add" and len(tainted) == 1):
            of_bank.update(node.output)
            names.add(node.name)
    return names
