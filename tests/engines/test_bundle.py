"""Bundles: whole or refused, and which backend opens them."""

import json
import shutil

import pytest
import torch

from ssd1b.engines.bundle import MANIFEST, Bundle, build, built, choose, open_engine
from ssd1b.engines.graph import ROW_INPUTS
from ssd1b.engines.manifest import architecture
from ssd1b.family.table import new_unet
from ssd1b.models.files import NANO, load_unet
from ssd1b.sampling.denoise import Request, generate
from ssd1b.sampling.preview import FILE as PREVIEW
from ssd1b.sampling.preview import Preview


@pytest.fixture
def copy(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle.folder, tmp_path / "copy")


def test_every_file_is_listed(tiny_bundle):
    files = {str(path.relative_to(tiny_bundle.folder)) for path in tiny_bundle.folder.rglob("*") if path.is_file()}
    assert files - {MANIFEST} == set(tiny_bundle.manifest["files"])
    graphs = {
        f"{name}.onnx{data}"
        for name in ("unet", "text_encoder_2", "vae_decoder", "vae_encoder")
        for data in ("", ".data")
    }
    assert graphs | {"unet_plain.onnx", "tokenizer/tokenizer.json"} <= files


@pytest.mark.parametrize("name", ["unet.onnx", "unet.onnx.data", "text_encoder_2_plain.onnx"])
def test_a_changed_byte_is_found(copy, name):
    path = copy / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is not the file that was exported.*jobs.export"):
        open_engine(copy)


def test_graphs_of_another_version_are_refused(copy):
    manifest = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps(manifest | {"graph": 2}))
    with pytest.raises(ValueError, match=r"graphs of version 2, this is 4: make it again with jobs\.export"):
        Bundle.load(copy)


def test_a_missing_file_is_named(copy):
    (copy / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"lacks tokenizer/tokenizer\.json"):
        Bundle.load(copy)


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_an_unreadable_manifest_is_named(copy, content):
    (copy / MANIFEST).write_text(content)
    with pytest.raises(ValueError, match=r"bundle\.json is unreadable"):
        Bundle.load(copy)


def test_a_folder_that_is_neither(tmp_path):
    with pytest.raises(ValueError, match=r"neither bundle\.json nor model_index\.json"):
        open_engine(tmp_path)


def test_a_model_without_a_part_is_refused_and_leaves_nothing(tiny_model, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    shutil.rmtree(model / "text_encoder_2")
    with pytest.raises(ValueError, match="lacks text_encoder_2"):
        build(model, tmp_path / "out", name="x", base="x")
    assert not list(tmp_path.glob("out*"))


def test_a_bank_without_room_is_refused(tiny_model, tmp_path):
    with pytest.raises(ValueError, match="hold no adapter"):
        build(tiny_model, tmp_path / "out", name="x", base="x", slots=1)


def test_the_same_bundle_is_built_once(tiny_model, tiny_bundle, tmp_path, monkeypatch):
    def build_by_copy(_model, out, **_):
        shutil.copytree(tiny_bundle.folder, out)
        return Bundle.load(out)

    monkeypatch.setattr("ssd1b.engines.bundle.build", build_by_copy)
    first = built(tiny_model, tmp_path, name="a", base="b", slots=4, rank=4)
    monkeypatch.delattr("ssd1b.engines.bundle.build")
    assert built(tiny_model, tmp_path, name="a", base="b", slots=4, rank=4).folder == first.folder
    with pytest.raises(NameError):  # another rank is another bundle, so it would be built
        built(tiny_model, tmp_path, name="a", base="b", slots=4, rank=8)


def test_a_diffusers_folder_opens_in_torch_only(tiny_model):
    assert open_engine(tiny_model).name == "torch"
    with pytest.raises(ValueError, match=r"needs an engine bundle.*jobs.export"):
        open_engine(tiny_model, "openvino")


def test_the_automatic_choice_says_why():
    def without(*missing, gpu=False):
        return choose("auto", lambda package: package not in missing, lambda: gpu)

    assert without() == ("openvino", "it is the fastest on a CPU")
    assert without("openvino") == ("onnxruntime", "openvino not installed")
    assert without("openvino", "onnxruntime")[0] == "torch"
    assert without(gpu=True) == ("compiled", "torch sees a GPU")


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("tensorrt", "no backend 'tensorrt': .* with a bundle, tensorrt"),
        ("compiled", "torch sees no GPU"),
        ("openvno", "no backend 'openvno': choose auto, compiled, openvino"),
        ("onnxruntime", "pip"),
    ],
)
def test_a_backend_that_cannot_be(backend, message):
    with pytest.raises(ValueError, match=message):
        choose(backend, lambda package: package == "torch", lambda: False)


def test_tensorrt_says_what_this_machine_lacks(tiny_bundle):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="no CUDA device here"):
        Bundle.load(tiny_bundle.folder, "tensorrt")


def test_an_unknown_precision_is_refused(tiny_bundle):
    with pytest.raises(ValueError, match="choose auto or f32"):
        open_engine(tiny_bundle.folder, precision="fp8")


def test_the_manifest_says_what_is_in_it(tiny_bundle):
    manifest = json.loads((tiny_bundle.folder / MANIFEST).read_text())
    assert (manifest["name"], manifest["slots"], manifest["rank"], manifest["plans"]) == ("tiny", 4, 4, [])
    assert list(manifest["inputs"])[: len(ROW_INPUTS)] == list(ROW_INPUTS)
    assert manifest["inputs"]["latents"] == ["batch", 4, "height", "width"]
    assert manifest["inputs"]["text"] == ["batch", "tokens", 128]
    for group in manifest["lora"]["unet"]:
        inside, outside, *_ = group["shape"]
        layers = len(group["layers"])
        assert manifest["inputs"][f"a_{inside}x{outside}"] == ["slots", layers, inside, "rank"]
        assert manifest["inputs"][f"b_{inside}x{outside}"] == ["slots", layers, "rank", outside]
    assert manifest["graphs"]["text_encoder_2.onnx"]["outputs"] == {
        "hidden": ["batch", "tokens", 64],
        "pooled": ["batch", 128],
    }
    assert manifest["graphs"]["vae_encoder.onnx"]["inputs"] == {"pixels": ["batch", 3, "height", "width"]}
    assert manifest["architecture"]["parameters"] == load_unet(str(tiny_bundle.folder)).num_parameters()
    for part in ("unet", "decoder", "encoder"):
        assert manifest["numerics"][part]["torch"]["max"] == 0  # the reference itself
        assert manifest["numerics"][part]["onnxruntime"]["rms_share"] < 1e-5


def test_the_family_is_named():
    assert architecture(new_unet("nano-ssd-1b"))["family"] == "nano-ssd-1b"
    assert architecture(new_unet("nano-sdxl"))["family"] == "nano-sdxl"


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_same_picture_as_torch(tiny_bundle, backend):
    requests = [Request(prompt="a red apple", seed=seed, steps=4) for seed in (0, 1)]
    torch_bundle = Bundle.load(tiny_bundle.folder, "torch")
    wanted = generate(torch_bundle.engine(), torch_bundle.prompts, torch_bundle.decode, requests)
    bundle = Bundle.load(tiny_bundle.folder, backend)
    ours = generate(bundle.engine("f32"), bundle.prompts, bundle.decode, requests)
    assert ours.dtype == torch.uint8
    assert ours.shape == (2, 128, 128, 3)
    assert (ours.int() - wanted.int()).abs().max() <= 1  # a level of 255: one rounding


def test_a_model_without_a_preview_map_gets_one_in_its_bundle(tiny_model, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / PREVIEW).unlink()
    made = build(model, tmp_path / "bundle", name="tiny", base="tiny", slots=2, rank=1)
    told, shipped = Preview.load(made.folder), Preview.load(NANO)
    assert not (model / PREVIEW).exists()
    assert {name for name in made.manifest["files"] if "preview" in name} == {str(PREVIEW)}
    corner = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    difference = (told(corner).float() - shipped(corner).float()).abs().mean()
    assert difference < 12, "the shipped map was fitted to other pictures of the same corpus"
