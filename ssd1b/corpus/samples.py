"""A sample of what was left out: of each reason a few rows by name, some with a small picture.

Which rows stand for a reason depends on their identity only: those of smallest sample_id, which is a hash, so that the
sample is an even one and the same whatever order tasks end in. It stays small however large the corpus is.
"""

import base64
import io
from collections.abc import Iterable
from dataclasses import asdict
from heapq import nsmallest
from typing import Any

from PIL import Image

from ssd1b.corpus.manifest import sample_id
from ssd1b.corpus.pictures import decode
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.sizes import Size

PER_REASON = 100
"""Rows of a reason that are named."""
PICTURES = 8
"""Of them, the first so many with a picture."""
THUMBNAIL_PX = 160
ALL_NAMED = Reason.UNREADABLE_SHARD
"""Every file that cannot be read is named: somebody has to mend it."""
Row = dict[str, Any]


class Samples:
    """Rejects by reason, the PER_REASON of smallest rank. Plain values, so that they travel as JSON."""

    def __init__(self) -> None:
        self.found: dict[str, list[Row]] = {}

    def add(self, reject: Reject, picture: bytes | None = None, *, max_pixels: int) -> None:
        """Take a reject into account; `picture` is its encoded picture, where there is one."""
        rows = self.found.setdefault(reject.reason.value, [])
        rank = sample_id(reject.source, reject.key)
        if len(rows) >= PER_REASON and reject.reason is not ALL_NAMED and rank >= rows[-1]["rank"]:
            return
        shown = picture is not None and (len(rows) < PICTURES or rank < rows[PICTURES - 1]["rank"])
        small = thumbnail(picture, max_pixels) if shown and picture is not None else None
        self.merge([{**asdict(reject), "rank": rank, "picture": small}])

    def merge(self, rows: Iterable[Row]) -> None:
        """Take in rows of another sample."""
        for row in rows:
            self.found.setdefault(row["reason"], []).append(row)
        for reason, kept in self.found.items():
            most = len(kept) if reason == ALL_NAMED.value else PER_REASON
            self.found[reason] = nsmallest(most, kept, key=lambda row: (row["rank"], row["key"], row["detail"]))
            for row in self.found[reason][PICTURES:]:
                row["picture"] = None

    def rows(self) -> list[Row]:
        """Return the sample, reason by reason."""
        return [row for reason in sorted(self.found) for row in self.found[reason]]

    def told(self) -> list[Row]:
        """Return it without ranks and pictures, as people read it."""
        return [{name: row[name] for name in row if name not in ("rank", "picture")} for row in self.rows()]

    def example(self) -> str:
        """Return one of them in words, for a message."""
        for row in self.told():
            return f"for example {row['key']}: {Reason(row['reason']).value}, {row['detail']}"
        return "no row was read"


def thumbnail(data: bytes, max_pixels: int) -> str | None:
    """Return a small JPEG of a picture in base64, or None where it cannot be decoded."""
    picture = decode(data, max_pixels=max_pixels, at_least=Size(THUMBNAIL_PX, THUMBNAIL_PX))
    if isinstance(picture, Reject):
        return None
    picture.image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    out = io.BytesIO()
    picture.image.save(out, "JPEG", quality=85)
    return base64.b64encode(out.getvalue()).decode()


def shown(text: str | None) -> Image.Image | None:
    """Return the picture that `thumbnail` packed."""
    return None if text is None else Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")
