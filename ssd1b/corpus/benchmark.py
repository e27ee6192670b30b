"""Reading pictures, against other libraries and against the raw limits: tar of JPEGs to the pixels of a bucket.

All read the same tars, one shard a round, on one thread. The libraries run in environments of their own, since the
project depends on none of them and they cannot all be installed together:

    python -m venv A && A/bin/pip install torch pillow webdataset datasets simplejpeg
    python -m venv B && B/bin/pip install torch pillow mosaicml-streaming
    python -m jobs.benchmark data --set others=A/bin/python:B/bin/python

Each library is measured twice: with Pillow's decoding and resizing, as its users write it, and with this project's
kernels given to it, where only the reading differs.
"""

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image

from ssd1b.corpus.contest import Contender, Others, Turn, timed
from ssd1b.corpus.pictures import decode
from ssd1b.corpus.pixels import fit, read_pixels
from ssd1b.corpus.reasons import Reject
from ssd1b.corpus.tars import read_tar
from ssd1b.sizes import SDXL_BUCKETS, Size, nearest_bucket

OURS = "ssd1b"
BLOCK_BYTES = 1 << 20
MAX_PIXELS = 64_000_000
BUCKETS = [[bucket.height, bucket.width] for bucket in SDXL_BUCKETS]


def picture_contenders(tars: list[Path], pythons: list[Others]) -> dict[str, Contender]:
    """Return all who read pictures, by name; round i is tar i. Writes the tars in the libraries' own forms."""
    torch.set_num_threads(1)
    held: dict[int, list[bytes]] = {}

    def bytes_of(round_: int) -> list[bytes]:
        if round_ not in held:
            held.clear()
            held[round_] = list(jpegs(tars[round_]))
        return held[round_]

    def in_memory(work: Callable[[bytes], int]) -> Contender:
        def turn(round_: int) -> Turn:
            data = bytes_of(round_)
            return timed(lambda: (len(data), sum(work(one) for one in data)))

        return turn

    contenders: dict[str, Contender] = {
        OURS: lambda round_: timed(lambda: ours(tars[round_])),
        "limit: sequential read alone": lambda round_: timed(lambda: (len(bytes_of(round_)), sequential(tars[round_]))),
        "limit: Pillow's JPEG decoding alone": in_memory(decode_alone),
        "limit: decoding and Lanczos alone": in_memory(decode_and_resize),
    }
    for python in pythons:
        add_libraries(contenders, tars, python)
    return contenders


def add_libraries(contenders: dict[str, Contender], tars: list[Path], python: Others) -> None:
    """Add what one of the other Pythons can import and none before it could."""

    def passing(ask: dict[str, object], shards: list[Path]) -> Contender:
        return lambda round_: python.turn({**ask, "shard": str(shards[round_]), "buckets": BUCKETS})

    if "simplejpeg" in python.found and "limit: simplejpeg alone" not in contenders:
        contenders["limit: simplejpeg alone"] = passing({"pass": "simplejpeg_decode"}, tars)
    for module in ("webdataset", "datasets", "streaming"):
        if module not in python.found or any(name.startswith(module) for name in contenders):
            continue
        shards = tars
        if module == "streaming":
            shards = [tar.with_suffix(".mds") for tar in tars]
            for tar, shard in zip(tars, shards, strict=True):
                python.ask(
                    {"pass": "write_streaming", "tar": str(tar), "shard": str(shard), "suffixes": ["jpg", "txt"]}
                )
        for workers in (0, 1) if module == "webdataset" else (0,):
            for kernel, told in (("pillow", ""), ("torch", ", our kernels")):
                name = f"{module}{' + DataLoader worker' * workers}{told}"
                contenders[name] = passing({"pass": f"{module}_pictures", "kernel": kernel, "workers": workers}, shards)


def jpegs(tar: Path) -> Iterator[bytes]:
    with tarfile.open(tar) as opened:
        for member in opened:
            if member.name.endswith(".jpg"):
                content = opened.extractfile(member)
                assert content is not None
                yield content.read()


def ours(tar: Path) -> tuple[int, int]:
    """Read a tar as jobs.ingest and jobs.encode do, and return how many pictures it gave and their bytes."""
    items = size = 0
    for pair in read_tar(tar, tar.name):
        assert not isinstance(pair, Reject), pair
        data = pair.read()
        found = read_pixels(data, bucket_of(data), max_pixels=MAX_PIXELS)
        assert not isinstance(found, Reject), found
        items += 1
        size += found.pixels_HWC.nbytes
    return items, size


def bucket_of(data: bytes) -> Size:
    """Return the bucket of an encoded picture, by its header."""
    with Image.open(io.BytesIO(data)) as image:
        return nearest_bucket(Size(image.height, image.width), SDXL_BUCKETS)


def sequential(tar: Path) -> int:
    """Read a file from start to end and return its bytes."""
    size = 0
    with tar.open("rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            size += len(block)
    return size


def decode_alone(data: bytes) -> int:
    """Decode a JPEG in draft mode and do nothing with it: libjpeg-turbo, as Pillow calls it."""
    bucket = bucket_of(data)
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (bucket.width, bucket.height))
    image.load()
    return image.height * image.width * 3


def decode_and_resize(data: bytes) -> int:
    bucket = bucket_of(data)
    picture = decode(data, max_pixels=MAX_PIXELS, at_least=bucket)
    assert not isinstance(picture, Reject)
    return fit(picture.image, bucket).pixels_HWC.nbytes
