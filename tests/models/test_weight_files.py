"""Weights in files: read lazily, refused in words. A broken file surfaces as a ValueError and as nothing else."""

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ssd1b.models.header import read_header
from ssd1b.models.variants import choose
from ssd1b.models.weights import Weights

TENSORS = {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.arange(5, dtype=torch.float16), "c": torch.ones(2)}


def write(path: Path, entries: dict, data: bytes, metadata: dict | None = None) -> Path:
    header = json.dumps(entries | ({"__metadata__": metadata} if metadata else {})).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path / "model.safetensors"


def holds(weights: Weights, expected: dict[str, torch.Tensor] = TENSORS) -> bool:
    return weights.keys() == expected.keys() and all(torch.equal(weights[name], expected[name]) for name in expected)


def test_names_shapes_and_dtypes_come_without_opening_the_file_for_tensors(file: Path) -> None:
    weights = Weights.open(file)
    assert weights.shapes == {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}
    assert weights.dtypes == {name: tensor.dtype for name, tensor in TENSORS.items()}
    assert weights.metadata == {"format": "pt"}
    assert not any("opened" in vars(place[0]) for place in weights.places.values())
    assert holds(weights)


def test_a_tensor_that_is_changed_does_not_change_the_file(file: Path) -> None:
    before = file.read_bytes()
    Weights.open(file)["c"].add_(1)
    assert file.read_bytes() == before


def test_parts_are_renamed_views(file: Path) -> None:
    assert holds(Weights.open(file).under("a."), {"weight": TENSORS["a.weight"]})
    assert "a.weight" not in Weights.open(file).under("b", "c")


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin", ".pkl", ".CKPT"])
def test_pickles_are_refused_by_name(tmp_path: Path, suffix: str) -> None:
    torch.save(TENSORS, path := tmp_path / f"model{suffix}")
    with pytest.raises(ValueError, match=r"can run any code when they are read.*safetensors"):
        Weights.open(path)


@pytest.mark.parametrize("new_format", [True, False])
def test_pickles_are_refused_by_content(tmp_path: Path, new_format: bool) -> None:
    torch.save(TENSORS, path := tmp_path / "model.safetensors", _use_new_zipfile_serialization=new_format)
    with pytest.raises(ValueError, match=r"whatever its name: pickles can run any code"):
        Weights.open(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty: fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (b'{"error": "Repository not found, or it is private"}', "is no safetensors file"),
        (b"abc", "is no safetensors file"),
        (struct.pack("<Q", 2**60) + b"{}", "is no safetensors file"),
        (struct.pack("<Q", 40) + b'{"a": ', "is cut short: its header alone has 48 bytes, the file 14"),
        (struct.pack("<Q", 6) + b'{"a": ', "header that cannot be read"),
    ],
)
def test_what_is_no_whole_file_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    (path := tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=says) as told:
        Weights.open(path)
    assert str(path) in str(told.value)


def test_a_header_whose_length_begins_like_a_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    entry = {"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
    write(path, entry, b"\x07", {"pad": ""})
    padding = 0x280 - struct.unpack("<Q", path.read_bytes()[:8])[0]
    write(path, entry, b"\x07", {"pad": "x" * padding})
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert Weights.open(path)["a"].tolist() == [7]


def test_a_length_that_is_wrong_tells_both_numbers(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    with pytest.raises(ValueError, match=rf"cut short: {len(whole)} bytes expected, {len(whole) - 3} found"):
        Weights.open(file)
    file.write_bytes(whole + b"!")
    with pytest.raises(ValueError, match="bytes that belong to no tensor"):
        Weights.open(file)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"a": {"dtype": "F4", "shape": [1], "data_offsets": [0, 4]}}, "stores a as 'F4'"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, "says a lies at bytes 0 to 4: it should be 8"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, "describes a in no way"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, "says a lies at bytes 4 to 8"),
        ({"a": {"dtype": "F32", "shape": [1]}}, "describes a in no way"),
        ({"a": [1]}, "describes a in no way"),
        ({"__metadata__": {"format": 1}}, "metadata in no form"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, entries: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Weights.open(write(tmp_path / "x.safetensors", entries, bytes(4)))


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    text = (
        b'{"a": {"dtype":"U8","shape":[1],"data_offsets":[0,1]}, "a": {"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    )
    (path := tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"1")
    with pytest.raises(ValueError, match="a stands in it twice"):
        Weights.open(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damage_is_a_value_error_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Cut anywhere, or with any byte of the header changed, a file is refused in words or reads as some tensors."""
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    save_file(TENSORS, path)
    whole = bytearray(path.read_bytes())
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
        path.write_bytes(whole)
        with pytest.raises(ValueError, match=r"damaged\.safetensors"):
            read_header(path)
        return
    whole[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        weights = Weights.open(path)
    except ValueError as error:
        assert "damaged.safetensors" in str(error)  # noqa: PT017  either outcome is right
    else:
        assert all(tuple(weights[name].shape) == shape for name, shape in weights.shapes.items())


def shard(folder: Path, index: str, shards: tuple[str, str]) -> None:
    split = ({"a.weight": TENSORS["a.weight"]}, {name: TENSORS[name] for name in ("b", "c")})
    for name, tensors in zip(shards, split, strict=True):
        save_file(tensors, folder / name)
    held = {key: name for name, tensors in zip(shards, split, strict=True) for key in tensors}
    (folder / index).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": held}))


STYLES = {
    "plain": ("{}.safetensors.index.json", "{}-0000{}-of-00002.safetensors"),
    "variant in the middle": ("{}.safetensors.index.fp16.json", "{}.fp16-0000{}-of-00002.safetensors"),
    "variant before the suffix": ("{}.fp16.safetensors.index.json", "{}-0000{}-of-00002.fp16.safetensors"),
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("stem", ["model", "diffusion_pytorch_model"])
def test_shards_read_as_one(tmp_path: Path, stem: str, style: str, capsys: pytest.CaptureFixture[str]) -> None:
    index, part = STYLES[style]
    shard(tmp_path, index.format(stem), (part.format(stem, 1), part.format(stem, 2)))
    assert holds(Weights.open(tmp_path))
    assert holds(Weights.open(tmp_path / index.format(stem)))
    assert capsys.readouterr().out.count("only" if style == "plain" else "its fp16 variant") == (style != "plain")
    files = tuple(part.format(stem, n) for n in (1, 2))
    assert choose([each.name for each in tmp_path.iterdir()], None, "x").shards == files


def test_shards_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    one, two = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    index = tmp_path / "model.safetensors.index.json"

    def told(match: str) -> None:
        with pytest.raises(ValueError, match=match):
            Weights.open(tmp_path)

    shard(tmp_path, index.name, (one, two))
    (tmp_path / two).rename(tmp_path / "kept")
    told(rf"lacks 1 of its shards \({two}\)")
    save_file({"b": TENSORS["b"]}, tmp_path / two)
    told(r"1 tensors that the index names and the shard lacks \(c\)")
    save_file({name: TENSORS[name] for name in ("b", "c", "a.weight")}, tmp_path / two)
    told(r"1 tensors that two shards hold \(a.weight\)")
    save_file({name: TENSORS[name] for name in ("b", "c")} | {"d": TENSORS["c"].clone()}, tmp_path / two)
    told(r"1 tensors that a shard holds and the index does not name \(d\)")
    index.write_text(json.dumps({"weight_map": {"a.weight": f"../{one}"}}))
    told("is not a file beside it")
    for broken in ("{", "[]", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a":"x","a":"y"}}'):
        index.write_text(broken)
        told("no readable index")
    index.unlink()
    told("no index: fetch the .safetensors.index.json")


HALF = {None: None, torch.float32: None, torch.float16: "fp16", torch.bfloat16: "bf16"}


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("bits", range(1, 8))
def test_full_precision_is_preferred_unless_a_half_dtype_is_wanted(bits: int, dtype: torch.dtype | None) -> None:
    there = [variant for i, variant in enumerate((None, "fp16", "bf16")) if bits >> i & 1]
    names = [f"model.{variant}.safetensors" if variant else "model.safetensors" for variant in there]
    chosen = choose(names, dtype, "x").variant
    assert chosen in there
    if HALF[dtype] in there:
        assert chosen == HALF[dtype]
    elif None in there:
        assert chosen is None


def test_an_fp16_variant_alone_is_read_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file(TENSORS, tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    assert holds(Weights.open(tmp_path))
    assert capsys.readouterr().out == f"{tmp_path} has no other weights than its fp16 variant: reading that\n"
    Weights.open(tmp_path, torch.float16)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["pytorch_model.bin", "config.json"], r"has only pytorch_model.bin: pickles can run any code"),
        (["config.json"], r"has no weights \(it holds config.json\)"),
        ([], r"has no weights \(it holds nothing\)"),
        (["model.safetensors", "model.safetensors.index.json"], "the same weights twice"),
        (["model.safetensors", "diffusion_pytorch_model.safetensors"], "the same weights twice"),
        (["model.ema.safetensors", "model.non_ema.safetensors"], "the variants ema, non_ema and no plain weights"),
    ],
)
def test_a_folder_without_one_set_of_weights_is_refused(names: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        choose(names, None, "folder")
    assert choose(["model.non_ema.safetensors"], None, "folder").variant == "non_ema"
