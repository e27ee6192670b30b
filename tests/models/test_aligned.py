"""Aligned files: the library reads them, and every tensor begins where it should."""

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from ssd1b.models.aligned import ALIGNMENT, KINDS, write_aligned

SHAPES = st.lists(st.integers(0, 40), max_size=3).map(tuple)


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.tuples(SHAPES, st.sampled_from(list(KINDS)))))
def test_what_is_written_is_read_by_the_library(kinds: dict[str, tuple[tuple[int, ...], torch.dtype]]) -> None:
    from tempfile import TemporaryDirectory

    tensors = {name: torch.randint(0, 2, shape).to(dtype) for name, (shape, dtype) in kinds.items()}
    tensors.pop("__metadata__", None)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        write_aligned(tensors, path, {"format": "pt"})
        read = load_file(path)
        assert read.keys() == tensors.keys()
        assert all(read[name].dtype == tensors[name].dtype and torch.equal(read[name], tensors[name]) for name in read)
        with safe_open(path, "pt") as file:
            assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_tensors_begin_at_multiples_of_64_bytes(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {"bias": torch.ones(3), "a": torch.ones(32, 32), "b": torch.ones(64), "odd": torch.ones(5, 7)}
    path = tmp_path / "x.safetensors"
    write_aligned({name: each.to(dtype) for name, each in tensors.items()}, path, {})
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    header = json.loads(path.read_bytes()[8 : 8 + length])
    assert (8 + length) % ALIGNMENT == 0
    assert all(header[name]["data_offsets"][0] % ALIGNMENT == 0 for name in ("a", "b"))
    assert max(header["a"]["data_offsets"]) < min(header["odd"]["data_offsets"]), "odd sizes come last"
