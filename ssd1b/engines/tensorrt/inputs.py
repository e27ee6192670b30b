"""What an ONNX graph takes: name, type and axes of every input, and the hash of all that it consists of.

Read from the file itself, without its weights, so that nothing here depends on how a graph was exported.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import onnx


@dataclass(frozen=True)
class Input:
    """One input: its type as ONNX names it ("FLOAT16"), and its axes, a number where fixed and a name where not."""

    dtype: str
    axes: tuple[int | str, ...]


def inputs_of(path: Path) -> dict[str, Input]:
    """Return the inputs of an ONNX file, in the order of the graph.

    Raises:
        ValueError: no graph can be read, or a dynamic axis without a name.
    """
    graph = read(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    found = {}
    for value in graph.input:
        if value.name in weights:
            continue
        tensor = value.type.tensor_type
        axes = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in tensor.shape.dim)
        if "" in axes:
            raise ValueError(f"{path.name}: axis {axes.index('')} of input {value.name} is dynamic but has no name: "
                             f"export it with names in dynamic_axes")  # fmt: skip
        found[value.name] = Input(onnx.TensorProto.DataType.Name(tensor.elem_type), axes)
    return found


def graph_hash(path: Path) -> str:
    """Return the sha256 of an ONNX file and of the files that hold its weights, in the order of their names.

    Raises:
        ValueError: a file of weights is missing or lies elsewhere than beside the graph.
    """
    whole = hashlib.sha256(file_hash(path).encode())
    for location in sorted(set(outside(path))):
        beside = path.parent / location
        if not beside.resolve().is_relative_to(path.parent.resolve()) or not beside.is_file():
            raise ValueError(f"{path.name} keeps weights in {location!r}, which is not a file beside it")
        whole.update(f"{location} {file_hash(beside)}".encode())
    return whole.hexdigest()


def outside(path: Path) -> Iterator[str]:
    """Yield the names of the files that weights lie in beside the graph, once for each weight."""
    for tensor in read(path).graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield next(entry.value for entry in tensor.external_data if entry.key == "location")


def read(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own exceptions have no public base
        raise ValueError(f"{path} is not an ONNX file ({error!r}): export the bundle again") from error


def file_hash(path: Path) -> str:
    """Return the sha256 of a file. It is read once for as long as it is not written to: whoever waits for a plan asks
    again and again, and weights are gigabytes."""
    stat = path.stat()
    return hash_of(path.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def hash_of(path: Path, size: int, mtime_ns: int) -> str:
    del size, mtime_ns  # only tell one state of the file from another
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
