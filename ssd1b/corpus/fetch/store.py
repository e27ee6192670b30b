"""Fetched pictures on disk, so that a run that was killed, or is made again, asks only for what is missing.

    <kept>/<shard>/<writer>.pictures     the bytes of pictures, one after the other
    <kept>/<shard>/<writer>.index        a line per URL: where its bytes lie, or why there are none, and a checksum
    <kept>/robots/                       see robots_book.py

Each writer appends to files of its own, so that a task which Ray runs twice at once does no harm; readers read all. A
line is written in one go, after the bytes that it speaks of, and counts only with its checksum: a kill leaves at most
one line that does not, and its picture is fetched again. Bytes are checked against their SHA-256 when they are read, so
that what a power failure tore is fetched again too. Memory is about 300 bytes per URL of the shard.
"""

import hashlib
import json
import os
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ssd1b.corpus.fetch.failure import REMEMBERED, Failure
from ssd1b.corpus.reasons import Reason

INDEX, PICTURES = ".index", ".pictures"


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a picture lies."""

    file: Path
    offset: int
    length: int
    sha256: str


class Store:
    """The pictures of one shard of a corpus. Use as a context; one thread writes at a time, any may read."""

    def __init__(self, folder: Path, *, most_bytes: int, again: bool = False) -> None:
        self.folder = folder
        self.most_bytes = most_bytes
        self.known: dict[bytes, Kept | Failure] = {}
        self.writer: tuple[int, int] | None = None
        self.name = uuid.uuid4().hex[:16]
        folder.mkdir(parents=True, exist_ok=True)
        for index in sorted(folder.glob(f"*{INDEX}")):
            for entry in whole_lines(index):
                self.learn(index.with_suffix(PICTURES), entry, again=again)

    def learn(self, pictures: Path, entry: list[str | int], *, again: bool) -> None:
        """Take a line of an index: a picture beats a failure, and a failure that may have passed is forgotten."""
        kind, key, first, second, third = entry
        url = bytes.fromhex(str(key))
        if kind == "picture":
            self.known[url] = Kept(pictures, int(first), int(second), str(third))
            return
        failure = Failure(reason=Reason(str(first)), detail=str(second))
        smaller_limit = failure.reason is Reason.URL_TOO_LARGE and int(third) < self.most_bytes
        if not again and not smaller_limit and not isinstance(self.known.get(url), Kept):
            self.known[url] = failure

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.writer is None:
            return
        for descriptor in self.writer:
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self.writer = None

    def get(self, url: str) -> Kept | Failure | None:
        """Return what is known of a URL: a picture, a failure for good, or nothing."""
        return self.known.get(key_of(url))

    def keep(self, url: str, data: bytes) -> None:
        """Keep a picture.

        Raises:
            OSError: it cannot be written, for want of room on the disk or else; the store is as before.
        """
        pictures, index = self.files()
        offset = os.lseek(pictures, 0, os.SEEK_END)
        digest = hashlib.sha256(data).hexdigest()
        with self.names_the_file(PICTURES):
            write_all(pictures, data)
        with self.names_the_file(INDEX):
            write_all(index, line(["picture", key_of(url).hex(), offset, len(data), digest]))
        self.known[key_of(url)] = Kept(self.path(PICTURES), offset, len(data), digest)

    def fail(self, url: str, failure: Failure) -> None:
        """Keep a failure for good; one that may pass is not kept."""
        if failure.reason not in REMEMBERED:
            return
        _, index = self.files()
        detail = failure.detail[:200]
        with self.names_the_file(INDEX):
            write_all(index, line(["failure", key_of(url).hex(), failure.reason.value, detail, self.most_bytes]))
        self.known[key_of(url)] = Failure(reason=failure.reason, detail=detail)

    def read(self, kept: Kept) -> bytes | None:
        """Return a picture's bytes, or None where they are not what was written."""
        try:
            with kept.file.open("rb") as file:
                file.seek(kept.offset)
                data = file.read(kept.length)
        except FileNotFoundError:
            return None
        return data if hashlib.sha256(data).hexdigest() == kept.sha256 else None

    def forget(self, url: str) -> None:
        """Let a damaged picture be fetched again."""
        self.known.pop(key_of(url), None)

    def path(self, suffix: str) -> Path:
        return self.folder / f"{self.name}{suffix}"

    @contextmanager
    def names_the_file(self, suffix: str) -> Iterator[None]:
        """Put the file's path into an error, which says nothing of it where one writes to a descriptor."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path(suffix))) from error

    def files(self) -> tuple[int, int]:
        """Return the descriptors of this writer's files, made when there is something to write."""
        if self.writer is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            pictures = os.open(self.path(PICTURES), flags, 0o644)
            self.writer = (pictures, os.open(self.path(INDEX), flags, 0o644))
        return self.writer


def key_of(url: str) -> bytes:
    """Return a URL's key: the first 16 bytes of its SHA-256."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest()[:16]


def line(entry: list[str | int]) -> bytes:
    text = json.dumps(entry).encode()
    # the newline in front ends what a write that broke off on a full disk may have left
    return b"\n%08x %s\n" % (zlib.crc32(text), text)


def whole_lines(index: Path) -> Iterator[list[str | int]]:
    """Yield the entries of an index whose checksum holds."""
    with index.open("rb") as file:
        for text in file:
            checksum, _, told = text.rstrip(b"\n").partition(b" ")
            if told and checksum == b"%08x" % zlib.crc32(told):
                yield json.loads(told)


def write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
