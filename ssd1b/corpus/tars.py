"""The WebDataset source: tars in which the files of one pair share a key: KEY.jpg with KEY.txt, or with KEY.json.

A file may have more suffixes than one (KEY.image.jpg): its last one says what it is, unless another file of the key has
just that suffix. Scores, sizes and language of a KEY.json are taken as the tools that fetch such corpora write them.
"""

import json
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from ssd1b.corpus.layouts import scores_of_entry
from ssd1b.corpus.pair import Pair, labels, texts
from ssd1b.corpus.reasons import Reason, Reject

IMAGES = ("jpg", "jpeg", "png", "webp")
TEXTS = ("txt", "json")
CAPTION = ("captions", "caption", "text", "prompt")
MOST_BYTES = 256 * 2**20
"""Of one file that are read: a longer picture is cut, and so counted as corrupt, before it fills the memory."""


def read_tar(path: Path, name: str) -> Iterator[Pair | Reject]:
    """Yield the pairs of a tar, of which `name` is the source.

    One that breaks off yields the pairs before the break, then one Reject of unknown size.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            yield from (pair_of(name, key, files) for key, files in read_groups(tar))
        check_end(path)
    except (tarfile.TarError, OSError, EOFError) as error:
        detail = f"{type(error).__name__}: {error}"
        yield Reject(reason=Reason.UNREADABLE_SHARD, source=name, key=name, detail=detail)


def check_end(path: Path) -> None:
    """Raise EOFError if a tar does not end in a block of zeros: tarfile takes a cut between two files for the end."""
    with path.open("rb") as file:
        file.seek(-tarfile.BLOCKSIZE, 2)
        if any(file.read()):
            raise EOFError("no end-of-archive block")


def read_groups(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield (key, {extension: content}); a key is the path up to the first dot of the file name."""
    for key, members in groupby(
        (member for member in tar if member.isfile()), key=lambda member: split(member.name)[0]
    ):
        files = {}
        for member in members:
            extension = split(member.name)[1]
            last = extension.rpartition(".")[2]
            if last in (*IMAGES, *TEXTS) and (extension == last or last not in files):
                content = tar.extractfile(member)
                assert content is not None, f"{member.name} is a file"
                files[last] = content.read(min(member.size, MOST_BYTES))
        yield key, files


def split(name: str) -> tuple[str, str]:
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return folder + slash + stem, extension.lower()


def pair_of(source: str, key: str, files: dict[str, bytes]) -> Pair | Reject:
    image = next((files[extension] for extension in IMAGES if extension in files), None)
    if image is None:
        return Reject(reason=Reason.IMAGE_MISSING, source=source, key=key, detail=f"files: {', '.join(files)}")
    try:
        entry = json.loads(files.get("json", b"{}"))
        if not isinstance(entry, dict):
            raise ValueError(f"{key}.json is no object")
        text = files["txt"].decode() if "txt" in files else next((entry[name] for name in CAPTION if name in entry), "")
    except UnicodeDecodeError as error:
        return Reject(reason=Reason.CAPTION_NOT_UTF8, source=source, key=key, detail=str(error))
    except ValueError as error:
        return Reject(reason=Reason.METADATA_UNREADABLE, source=source, key=key, detail=str(error))
    return Pair(
        source=source,
        key=key,
        captions=texts(text),
        image=image,
        **scores_of_entry(entry),
        **labels(entry),
    )
