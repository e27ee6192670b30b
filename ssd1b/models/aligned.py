"""Write safetensors files whose tensors begin where arithmetic likes them to.

Readers map such a file into memory and compute on it as it lies there, and matrix products differ in the last bit with
where an operand begins. Where every tensor begins at a multiple of 64 bytes, as memory that torch allocates does, a
model read from a file computes bit for bit what the model that was written did. The library's own writer aligns to 8.

The format: eight bytes of header length, the header as JSON, then the tensors without gaps
(github.com/huggingface/safetensors, "Format").
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

ALIGNMENT = 64
KINDS = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def write_aligned(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write contiguous CPU tensors; those whose size is no multiple of the alignment come last."""
    order = sorted(tensors, key=lambda name: (tensors[name].nbytes % ALIGNMENT != 0, name))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        tensor = tensors[name]
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": KINDS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
