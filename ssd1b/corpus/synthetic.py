"""Metadata in GRIT's schema for measuring and testing at any number of rows: made up, with defects at known places.

Of every forty rows the same ones are flawed (PLANTED), so that a funnel over them must name each and count it exactly.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ssd1b.corpus.reasons import Reason
from ssd1b.sizes import SDXL_BUCKETS

# B rows of a batch

CYCLE = 40
PLANTED: dict[int, Reason] = {
    0: Reason.CAPTION_EMPTY,
    1: Reason.CAPTION_TOO_SHORT,
    2: Reason.CLIP_SCORE_LOW,
    3: Reason.CLIP_SCORE_LOW,
    4: Reason.SIDE_TOO_SHORT,
    5: Reason.SIDE_TOO_SHORT,
    6: Reason.SIDE_TOO_SHORT,
    7: Reason.ASPECT_TOO_LONG,
    8: Reason.TOO_SMALL,
    9: Reason.IMAGE_MISSING,
    10: Reason.DUPLICATE_URL,
    11: Reason.DUPLICATE_KEY,
}
"""What is wrong with a row, by its number modulo CYCLE, under the recipe `grit`; all others are in order."""
BATCH_ROWS = 1 << 16
FILE_ROWS = 1 << 20
POOL = 4096
REGION = pa.list_(pa.list_(pa.float64()))
SCHEMA = pa.schema(
    [
        ("key", pa.string()), ("clip_similarity_vitb32", pa.float64()), ("clip_similarity_vitl14", pa.float64()),
        ("id", pa.int64()), ("url", pa.string()), ("caption", pa.string()), ("width", pa.int64()),
        ("height", pa.int64()), ("noun_chunks", REGION), ("ref_exps", REGION),
    ]
)  # fmt: skip
WORDS = "a the old red small wooden boat dog street market photograph of with near under blue sky and two people"


def write(folder: Path, rows: int, seed: int = 0) -> None:
    """Write so many rows as Parquet files of a million rows; the same rows for the same seed."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    captions = pa.array([" ".join(random.choice(WORDS.split(), random.integers(4, 18))) for _ in range(POOL)])
    regions = pa.array([region(random) for _ in range(POOL)], REGION)
    for number, first in enumerate(range(0, rows, FILE_ROWS)):
        last = min(rows, first + FILE_ROWS)
        with pq.ParquetWriter(folder / f"coyo_{number}_snappy.parquet", SCHEMA, compression="snappy") as writer:
            for start in range(first, last, BATCH_ROWS):
                row_B = np.arange(start, min(last, start + BATCH_ROWS))
                writer.write_table(batch(row_B, random, captions, regions))


def region(random: np.random.Generator) -> list[list[float]]:
    return [[0.0, 5.0, *np.sort(random.random(4)).round(4).tolist(), 0.9] for _ in range(int(random.integers(1, 3)))]


def batch(row_B: NDArray[np.int64], random: np.random.Generator, captions: pa.Array, regions: pa.Array) -> pa.Table:
    """Return rows by their numbers."""
    count, kind_B = len(row_B), row_B % CYCLE
    bucket_B = random.integers(0, len(SDXL_BUCKETS), count)
    scale_B = random.uniform(1.0, 2.0, count)
    height_B, width_B = (
        np.ceil(np.array([getattr(size, side) for size in SDXL_BUCKETS])[bucket_B] * scale_B).astype(np.int64)
        for side in ("height", "width")
    )
    small_B, long_B, below_B = np.isin(kind_B, [4, 5, 6]), kind_B == 7, kind_B == 8
    height_B[small_B | below_B], width_B[small_B | below_B] = 400, 400
    height_B[below_B], width_B[below_B] = 900, 900
    height_B[long_B], width_B[long_B] = 600, 2400
    score_B = random.uniform(0.2, 0.4, count)
    score_B[np.isin(kind_B, [2, 3])] = 0.1
    # 10 and 11 say again what a sound row of their own forty says: 10 the URL of 30, 11 the key of 31
    origin_B = np.where(kind_B == 10, row_B + 20, row_B)
    id_B = np.where(kind_B == 11, row_B + 20, row_B) * 7919 + 1
    caption = captions.take(pa.array(random.integers(0, POOL, count)))
    caption = pa.array(
        np.where(kind_B == 0, " ?! ", np.where(kind_B == 1, "dog", caption.to_numpy(False))), pa.string()
    )
    url = [
        f"https://pictures{row % 997}.example.org/media/{row * 2654435761 % 2**32:08x}/{row}.jpg"
        for row in origin_B.tolist()
    ]
    return pa.table(
        {
            "key": [f"{row % 10_000_000:09d}" for row in row_B.tolist()],
            "clip_similarity_vitb32": score_B * 0.9,
            "clip_similarity_vitl14": score_B,
            "id": id_B,
            "url": pa.array(url, mask=kind_B == 9),
            "caption": caption,
            "width": width_B,
            "height": height_B,
            "noun_chunks": regions.take(pa.array(random.integers(0, POOL, count))),
            "ref_exps": regions.take(pa.array(random.integers(0, POOL, count))),
        },
        schema=SCHEMA,
    )  # fmt: skip


def planted(rows: int) -> dict[str, int]:
    """Return what the funnel of so many rows must say: rows by reason, and `kept`.

    Raises:
        ValueError: the last forty are not whole, so that a twin would lie beyond the end.
    """
    if rows % CYCLE or rows <= 0:
        raise ValueError(f"rows={rows}: give a multiple of {CYCLE}")
    counted = Counter(reason.value for reason in PLANTED.values())
    return {"kept": rows // CYCLE * (CYCLE - len(PLANTED)), **{name: n * rows // CYCLE for name, n in counted.items()}}
