"""The door to the libraries: what is installed, what it can build for, and what is said when it is not or cannot."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from trt_stand_in import ILogger, stand_in

from ssd1b.engines.tensorrt import library as door
from ssd1b.engines.tensorrt.library import Library, find, open_library
from ssd1b.engines.tensorrt.options import Options, Quantise, Target


def rtx_like(version="1.7.1.116"):
    known = dict.fromkeys(["NONE", "CURRENT", "SM75", "SM80", "SM86", "SM89", "SM120", "SM121"])
    return SimpleNamespace(__version__=version, ILogger=ILogger, ComputeCapability=SimpleNamespace(__members__=known))


@pytest.fixture
def installed(monkeypatch):
    """Set which modules can be imported."""

    def set_to(**modules):
        for name in door.NAMES:
            monkeypatch.setitem(sys.modules, name, modules.get(name))

    return set_to


def test_without_either_library_it_says_how_to_get_them(installed):
    installed()
    with pytest.raises(ValueError, match=r"neither .*pip install 'ssd1b\[gpu\]'.*pip install 'ssd1b\[trt-rtx\]'"):
        open_library()
    with pytest.raises(ValueError, match=r"tensorrt 10\.0 or newer is not installed.*ssd1b\[gpu\]"):
        open_library("tensorrt")
    with pytest.raises(ValueError, match="no library 'openvino': choose auto, tensorrt or tensorrt_rtx"):
        open_library("openvino")


def test_a_library_that_is_too_old_counts_as_none(installed):
    installed(tensorrt=SimpleNamespace(__version__="9.3.0"), tensorrt_rtx=rtx_like("1.1.0.5"))
    assert find("tensorrt") is None
    assert find("tensorrt_rtx") is None


def test_the_one_that_can_build_for_the_gpu_is_taken(installed, monkeypatch):
    installed(tensorrt=stand_in()[0].module, tensorrt_rtx=rtx_like())
    assert open_library("auto", "sm80").name == "tensorrt_rtx"  # no GPU here: TensorRT can build for none
    monkeypatch.setattr(door, "capability_here", lambda: "sm90")
    assert open_library("auto", "sm90").name == "tensorrt"
    assert open_library("auto", "sm86").name == "tensorrt_rtx"
    assert open_library().name == "tensorrt"


@pytest.mark.parametrize("capability", ["sm90", "sm100"])
def test_an_h100_is_refused_by_rtx_with_what_works_instead(installed, capability):
    installed(tensorrt_rtx=rtx_like())
    for name in ("auto", "tensorrt_rtx"):
        with pytest.raises(ValueError, match=rf"builds for sm75, .*, not for {capability}: .*H100 .*full TensorRT"):
            open_library(name, capability)


def test_tensorrt_builds_for_the_gpu_at_hand_alone(monkeypatch):
    library, _ = stand_in()
    with pytest.raises(ValueError, match=r"the GPU at hand \(none\), not for sm80"):
        library.require("sm80")
    monkeypatch.setattr(door, "capability_here", lambda: "sm90")
    library = Library("tensorrt", library.module)
    library.require("sm90")
    with pytest.raises(ValueError, match=r"the GPU at hand \(sm90\), not for sm80"):
        library.require("sm80")


def test_types_that_torch_has_not_are_refused():
    library, _ = stand_in()
    assert library.dtype("DataType.HALF") is torch.float16
    with pytest.raises(ValueError, match="of type FP4: export it as"):
        library.dtype("DataType.FP4")


@pytest.mark.parametrize("wrong", ["a100", "sm", "8.0", "SM80"])
def test_an_architecture_is_written_one_way(wrong):
    with pytest.raises(ValueError, match="is not a GPU architecture: write it as sm80"):
        Target(wrong)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_the_target_must_be_named():
    with pytest.raises(ValueError, match="no CUDA device here: name the architecture"):
        Target.here()


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match="level 6: choose 0 to 5"):
        Options(level=6)


def test_quantising_needs_modelopt_and_every_input(tmp_path, monkeypatch):
    """What ModelOpt makes of it was never seen: it is not installed here. What it is asked for is."""
    import onnx

    from ssd1b.engines.tensorrt.quantise import quantised

    info, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT16
    shapes = {"latents": ["batch", 8], "a_8x8": [2, 8, 1], "slot": ["batch"]}
    node = onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [
            node("MatMul", ["latents", "w"], ["base"], name="layer"),
            node("Gather", ["a_8x8", "slot"], ["a"], name="pick"),
            node("MatMul", ["latents", "a"], ["side"], name="side"),
            node("Add", ["base", "side"], ["noise"], name="sum"),
        ],
        "g",
        [info(name, onnx.TensorProto.INT64 if name == "slot" else kind, shape) for name, shape in shapes.items()],
        [info("noise", kind, ["batch", 8])],
        [onnx.numpy_helper.from_array(np.zeros((8, 8), np.float16), "w")],
    )
    path = tmp_path / "unet.onnx"
    onnx.save(onnx.helper.make_model(graph), path)
    calibration = tmp_path / "calibration.npz"
    np.savez(calibration, latents=np.zeros((1, 8)), slot=np.zeros(1))
    with pytest.raises(ValueError, match=r"has no a_8x8: keep an array for every input"):
        quantised(path, Quantise("fp8", calibration), tmp_path)
    np.savez(calibration, latents=np.zeros((1, 8)), slot=np.zeros(1), a_8x8=np.zeros((2, 8, 1)), more=np.zeros(1))
    monkeypatch.setitem(sys.modules, "modelopt", None)
    with pytest.raises(ValueError, match="fp8 needs ModelOpt"):
        quantised(path, Quantise("fp8", calibration), tmp_path)
    asked = {}
    module = SimpleNamespace(quantize=lambda graph, **how: asked.update(how, graph=graph))
    for name, value in {"modelopt": module, "modelopt.onnx": module, "modelopt.onnx.quantization": module}.items():
        monkeypatch.setitem(sys.modules, name, value)
    assert quantised(path, Quantise("fp8", calibration), tmp_path) == tmp_path / "unet-fp8.onnx"
    assert asked["quantize_mode"] == "fp8"
    assert asked["high_precision_dtype"] == "fp16"
    assert set(asked["calibration_data"]) == set(shapes)
    assert asked["nodes_to_exclude"] == ["pick", "side"], "side paths keep the graph's precision, the layer does not"
    assert not asked["use_external_data_format"]
