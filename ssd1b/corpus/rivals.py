"""The work of the data benchmark as other libraries do it. Run by their own Python; imports nothing of this project.

Reads one question a line, JSON, and answers each with one line: which libraries there are, their form of a tar or of
latents written, or one pass over such a shard, timed. The work is that of corpus/benchmark.py: an encoded picture
becomes the uint8 pixels of its bucket; a row of latents becomes two arrays, in shuffled order.
"""

import importlib
import importlib.metadata
import io
import json
import os
import resource
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PACKAGES = {"webdataset": "webdataset", "datasets": "datasets", "streaming": "mosaicml-streaming"}
"""Module and its name for pip."""
OPTIONAL = {"simplejpeg": "simplejpeg"}
LATENTS = (4, 128, 128)
SHUFFLE_ROWS = 256
"""The rows that this project's order shuffles together, of a large corpus."""


def nearest(height: int, width: int, buckets: list[list[int]]) -> list[int]:
    """Return the [height, width] whose aspect is nearest."""
    aspect = width / height
    return min(buckets, key=lambda bucket: max(bucket[1] / bucket[0] / aspect, aspect / (bucket[1] / bucket[0])))


def cut(image: Image.Image, buckets: list[list[int]], kernel: str) -> Any:
    """Return a picture's pixels, resized by Lanczos to cover its bucket and cut to it, uint8 [H, W, 3].

    kernel: "pillow", as most people do it, or "torch", the same as this project's, with JPEG's draft mode.
    """
    bucket_height, bucket_width = nearest(image.height, image.width, buckets)
    if kernel == "torch":
        image.draft("RGB", (bucket_width, bucket_height))
    image = image.convert("RGB")
    scale = max(bucket_height / image.height, bucket_width / image.width)
    height, width = max(bucket_height, round(image.height * scale)), max(bucket_width, round(image.width * scale))
    top, left = (height - bucket_height) // 2, (width - bucket_width) // 2
    if kernel == "pillow":
        resized = image.resize((width, height), Image.Resampling.LANCZOS)
        return np.array(resized.crop((left, top, left + bucket_width, top + bucket_height)))
    torch = importlib.import_module("torch")
    pixels_BCHW = torch.from_numpy(np.array(image))[None].permute(0, 3, 1, 2)
    resized_BCHW = torch.nn.functional.interpolate(pixels_BCHW, (height, width), mode="lanczos", antialias=True)
    resized_HWC = resized_BCHW[0].permute(1, 2, 0).numpy()
    return np.ascontiguousarray(resized_HWC[top : top + bucket_height, left : left + bucket_width])


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def arrays(mean: bytes, std: bytes) -> tuple[Any, Any]:
    return np.frombuffer(mean, np.float16).reshape(LATENTS), np.frombuffer(std, np.float16).reshape(LATENTS)


def webdataset_pictures(ask: dict[str, Any]) -> Iterator[Any]:
    wds, torch = importlib.import_module("webdataset"), importlib.import_module("torch")
    data = wds.WebDataset(ask["shard"], shardshuffle=False, empty_check=False)
    if ask["kernel"] == "pillow":
        data = data.decode("pil").map(lambda row: cut(row["jpg"], ask["buckets"], "pillow"))
    else:
        data = data.map(lambda row: cut(opened(row["jpg"]), ask["buckets"], "torch"))
    yield from torch.utils.data.DataLoader(data, batch_size=None, num_workers=ask["workers"])


def webdataset_latents(ask: dict[str, Any]) -> Iterator[Any]:
    wds, torch = importlib.import_module("webdataset"), importlib.import_module("torch")
    data = wds.WebDataset(ask["shard"], shardshuffle=False, empty_check=False).shuffle(SHUFFLE_ROWS)
    data = data.map(lambda row: arrays(row["mean.bin"], row["std.bin"]))
    yield from torch.utils.data.DataLoader(data, batch_size=None, num_workers=ask["workers"], collate_fn=same)


def same(row: Any) -> Any:
    return row


def datasets_pictures(ask: dict[str, Any]) -> Iterator[Any]:
    hf = importlib.import_module("datasets")
    data = hf.load_dataset("webdataset", data_files={"train": [ask["shard"]]}, split="train", streaming=True)
    if ask["kernel"] == "torch":
        data = data.cast_column("jpg", hf.Image(decode=False))
    for row in data:
        image = opened(row["jpg"]["bytes"]) if ask["kernel"] == "torch" else row["jpg"]
        yield cut(image, ask["buckets"], ask["kernel"])


def datasets_latents(ask: dict[str, Any]) -> Iterator[Any]:
    hf = importlib.import_module("datasets")
    data = hf.load_dataset("parquet", data_files={"train": [ask["shard"]]}, split="train", streaming=True)
    for row in data.shuffle(seed=0, buffer_size=SHUFFLE_ROWS):
        yield arrays(row["mean"], row["std"])


def streaming_pictures(ask: dict[str, Any]) -> Iterator[Any]:
    mds = importlib.import_module("streaming")
    for row in mds.StreamingDataset(local=ask["shard"], batch_size=1, shuffle=False):
        yield cut(opened(row["jpg"]), ask["buckets"], ask["kernel"])


def streaming_latents(ask: dict[str, Any]) -> Iterator[Any]:
    mds = importlib.import_module("streaming")
    for row in mds.StreamingDataset(local=ask["shard"], batch_size=1, shuffle=True, shuffle_block_size=SHUFFLE_ROWS):
        yield arrays(row["mean"], row["std"])


def simplejpeg_decode(ask: dict[str, Any]) -> Iterator[Any]:
    """libjpeg-turbo alone, through its thinnest wrapper."""
    decode = importlib.import_module("simplejpeg").decode_jpeg
    with tarfile.open(ask["shard"]) as tar:
        held = [tar.extractfile(one).read() for one in tar if one.name.endswith(".jpg")]  # type: ignore[union-attr]
    yield None  # the clock starts here
    for data in held:
        yield decode(data)


def write_streaming(ask: dict[str, Any]) -> Iterator[Any]:
    """Write the files of a tar, by key and suffix, as an MDS shard."""
    mds = importlib.import_module("streaming")
    columns = dict.fromkeys(ask["suffixes"], "bytes")
    with tarfile.open(ask["tar"]) as tar, mds.MDSWriter(out=ask["shard"], columns=columns) as out:
        row: dict[str, bytes] = {}
        for member in tar:
            row[member.name.partition(".")[2].partition(".")[0]] = tar.extractfile(member).read()  # type: ignore[union-attr]
            if len(row) == len(columns):
                out.write(row)
                row = {}
    yield None


PASSES: dict[str, Callable[[dict[str, Any]], Iterator[Any]]] = {
    passing.__name__: passing
    for passing in (
        webdataset_pictures, webdataset_latents, datasets_pictures, datasets_latents,
        streaming_pictures, streaming_latents, simplejpeg_decode, write_streaming,
    )
}  # fmt: skip


def cpu_s() -> float:
    """Return the seconds of CPU that this process and its ended children have used."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def timed(passing: Iterator[Any]) -> dict[str, Any]:
    """Run one pass and return how many items it gave and what they took. A leading None starts the clock anew."""
    started, used, items, size = time.monotonic(), cpu_s(), 0, 0
    for item in passing:
        if item is None:
            started, used = time.monotonic(), cpu_s()
            continue
        items += 1
        size += sum(one.nbytes for one in item) if isinstance(item, tuple) else item.nbytes
    return {"items": items, "bytes": size, "cpu_s": cpu_s() - used, "wall_s": time.monotonic() - started}


def versions() -> dict[str, Any]:
    """Return which libraries can be imported here, and why the others cannot."""
    found, missing = {}, {}
    for module, package in (PACKAGES | OPTIONAL).items():
        try:
            importlib.import_module(module)
            found[module] = importlib.metadata.version(package)
        except Exception as error:  # a library in another's environment fails in ways of its own
            missing[module] = f"{type(error).__name__}: {error}"
    return {"found": found, "missing": missing}


def main() -> None:
    # Answers go to the real stdout; what libraries print goes elsewhere.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        ask = json.loads(line)
        if ask["pass"] == "versions":
            answer = versions()
        else:
            if "shard" in ask:
                ask["shard"] = str(Path(ask["shard"]))
            answer = timed(PASSES[ask["pass"]](ask))
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
