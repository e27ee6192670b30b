"""One actor of jobs.encode: a VAE that turns a part of the manifest into a part of the latents."""

import json
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ssd1b.command import show
from ssd1b.corpus.decoding import Prepared, Row, decoders
from ssd1b.corpus.manifest import write_table
from ssd1b.corpus.reasons import Reason
from ssd1b.models.files import load_vae
from ssd1b.recipes.encode import Encode
from ssd1b.sampling.vae import Vae

# B batch, C colour (3) or latent (4) channels, H W pixels or latent pixels (an eighth)

SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.uint64(), nullable=False),
        pa.field("mean", pa.binary(), nullable=False),  # float16 [4, H, W], row-major, times the VAE's scaling factor
        pa.field("std", pa.binary(), nullable=False),  # the same
        pa.field("original_height", pa.int32(), nullable=False),
        pa.field("original_width", pa.int32(), nullable=False),
        pa.field("crop_top", pa.int32(), nullable=False),
        pa.field("crop_left", pa.int32(), nullable=False),
        pa.field("target_height", pa.int32(), nullable=False),
        pa.field("target_width", pa.int32(), nullable=False),
        pa.field("captions", pa.list_(pa.string()), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("style", pa.string()),
        pa.field("concept", pa.string()),
    ]
)
MADE_FROM = b"ssd1b.made_from"
TALLY = b"ssd1b.tally"
SELECTED_BY = ("style", "split", "subgroup")
ROW_GROUP_ROWS = 64
"""Rows of a latents row group, 16 MiB at 1024 pixels: what the elastic order keeps side by side (elastic/passes.py), so
that a reader who follows it reads no row that it does not use."""


class PartEncoder:
    """Encodes parts one after the other; pictures are decoded elsewhere while the VAE works on those before."""

    def __init__(self, config: Encode) -> None:
        self.config = config
        self.device = "cuda" if config.gpus_per_worker else "cpu"
        self.vae = Vae(load_vae(config.model).to(self.device), getattr(torch, config.dtype))
        self.decoders = decoders(config)
        torch.set_num_threads(config.decode_threads)

    def __call__(self, work: dict[str, Any]) -> dict[str, Any]:
        """Write one part, unless none of its rows is selected, and return the counts.

        work: source and part (paths), made_from (what the part is to say of its origin), rows (of the source).
        A source that cannot be read to its end gives the rows that can be read; its part will not count as finished.
        Ray asks again for a part whose report was lost with a node; one that is finished is not encoded again.
        """
        if done := finished(Path(work["part"]), work["made_from"]):
            return {"tally": {**done, "rows_new": done["rows_kept"], "parts_done": 1}, "unreadable": []}
        tally = Counter[str]()
        broken: list[str] = []
        rows = [row for batch in self.batches(work, tally, broken) for row in self.encode(batch, tally)]
        tally["rows_kept"] += len(rows)
        if rows:
            told = {MADE_FROM: "" if broken else work["made_from"], TALLY: json.dumps(tally)}
            table = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata(told))
            write_table(table, Path(work["part"]), row_group_rows=ROW_GROUP_ROWS)
        else:
            Path(work["part"]).unlink(missing_ok=True)
        return {"tally": {**tally, "rows_new": len(rows), "parts_done": 1}, "unreadable": broken}

    def batches(self, work: dict[str, Any], tally: Counter[str], broken: list[str]) -> Iterator[list[Row]]:
        """Yield the selected rows with their pixels, batch by batch; while one is used the next are being decoded."""
        coming: deque[Callable[[], Prepared]] = deque()
        for batch in read(Path(work["source"]), work["rows"], self.config.batch_size, tally, broken):
            rows = batch.filter(self.mask(batch)).to_pylist()
            tally.update(rows_in=len(batch), not_selected=len(batch) - len(rows))
            coming.append(self.decoders.start(rows))
            if len(coming) > self.decoders.ahead:
                yield usable(coming.popleft()(), tally)
        while coming:
            yield usable(coming.popleft()(), tally)

    def mask(self, batch: pa.RecordBatch) -> pa.Array:
        """Return which rows of a batch the recipe selects."""
        chosen = pa.array(np.ones(len(batch), bool))
        for field in SELECTED_BY:
            if wanted := getattr(self.config, f"{field}s"):
                chosen = pc.and_(chosen, pc.is_in(batch[field], pa.array(wanted, pa.string())))
        return chosen

    @torch.inference_mode()
    def encode(self, rows: list[Row], tally: Counter[str]) -> Iterator[Row]:
        """Yield the rows of a batch with mean and std in place of pixels."""
        if not rows:
            return
        pixels_BCHW = torch.from_numpy(np.stack([row.pop("pixels") for row in rows])).permute(0, 3, 1, 2)
        mean_BCHW, std_BCHW = self.posterior(pixels_BCHW)
        finite_B = (mean_BCHW.isfinite() & std_BCHW.isfinite()).flatten(1).all(1)
        for row, mean_CHW, std_CHW, finite in zip(rows, mean_BCHW, std_BCHW, finite_B, strict=True):
            if finite:
                yield {**row, "mean": mean_CHW.numpy().tobytes(), "std": std_CHW.numpy().tobytes()}
            else:
                tally[Reason.LATENTS_NOT_FINITE.value] += 1

    def posterior(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the latents of uint8 pixels, scaled, float16 on the CPU.

        Rows that the VAE cannot encode are NaN; `encode` counts and drops them.
        """
        mean_BCHW, std_BCHW = self.vae.posterior(pixels_BCHW.to(self.device).float() / 127.5 - 1)
        return mean_BCHW.half().cpu(), std_BCHW.half().cpu()


def finished(part: Path, made_from: str) -> dict[str, int] | None:
    """Return the counts of a part that was made from just this, or None where it must be encoded."""
    if not part.exists():
        return None
    try:
        told = pq.read_schema(part).metadata or {}
    except (OSError, pa.ArrowException) as error:
        show(f"{part} is damaged and is made again: {str(error).splitlines()[0]}")
        return None
    if told.get(MADE_FROM, b"").decode() != made_from:
        return None
    counts: dict[str, int] = json.loads(told[TALLY])
    return counts


def read(source: Path, rows: int, batch_rows: int, tally: Counter[str], broken: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a manifest part; those of a row group that breaks off are counted, and the next one is read.

    rows: what the part is said to hold; counted as lost if the file itself does not open any more.
    """
    try:
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                left = file.metadata.row_group(group).num_rows
                try:
                    for batch in file.iter_batches(batch_rows, [group]):
                        yield batch
                        left -= len(batch)
                        rows -= len(batch)
                except (OSError, pa.ArrowException) as error:
                    rows -= left
                    lose(left, f"{source.name}, row group {group}: {error}", tally, broken)
    except (OSError, pa.ArrowException) as error:
        lose(rows, f"{source.name}: {error}", tally, broken)


def lose(rows: int, detail: str, tally: Counter[str], broken: list[str]) -> None:
    """Count rows as unreadable."""
    tally.update({"rows_in": rows, Reason.UNREADABLE_SHARD.value: rows})
    broken.append(detail.splitlines()[0])


def usable(prepared: Prepared, tally: Counter[str]) -> list[Row]:
    """Return the rows that have pixels, and count the others."""
    rows = []
    for found in prepared:
        if isinstance(found, Reason):
            tally[found.value] += 1
        else:
            rows.append(found)
    return rows
