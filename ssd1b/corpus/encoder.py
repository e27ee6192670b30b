"""One actor of jobs.encode: a VAE that turns a part of the manifest into a part of the latents."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ssd1b.corpus.manifest import write_table
from ssd1b.corpus.pictures import cover_and_crop, decode
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.models.files import load_vae
from ssd1b.recipes.encode import Encode
from ssd1b.sampling.vae import Vae
from ssd1b.sizes import Size

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
COPIED = ("sample_id", "captions", "split", "style", "concept")
Row = dict[str, Any]


class PartEncoder:
    """Encodes parts one after the other; pictures are decoded on threads while the VAE works on those before."""

    def __init__(self, config: Encode) -> None:
        self.config = config
        self.device = "cuda" if config.gpus_per_worker else "cpu"
        self.vae = Vae(load_vae(config.model).to(self.device), getattr(torch, config.dtype))
        self.threads = ThreadPoolExecutor(config.decode_threads)
        torch.set_num_threads(config.decode_threads)

    def __call__(self, work: dict[str, str]) -> dict[str, int]:
        """Write one part, unless none of its rows is selected, and return the counts."""
        tally = Counter[str]()
        rows = [row for batch in self.batches(Path(work["source"]), tally) for row in self.encode(batch, tally)]
        tally["rows_kept"] += len(rows)
        if rows:
            told = {MADE_FROM: work["made_from"], TALLY: json.dumps(tally)}
            table = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata(told))
            write_table(table, Path(work["part"]), row_group_rows=256)
        else:
            Path(work["part"]).unlink(missing_ok=True)
        return {**tally, "rows_new": len(rows), "parts_done": 1}

    def batches(self, source: Path, tally: Counter[str]) -> Iterator[list[Row]]:
        """Yield the selected rows with their pixels, batch by batch; while one is used the next is being decoded."""
        ahead = None
        with pq.ParquetFile(source) as file:
            for batch in file.iter_batches(self.config.batch_size):
                rows = batch.filter(self.mask(batch)).to_pylist()
                tally.update(rows_in=len(batch), not_selected=len(batch) - len(rows))
                coming = self.threads.map(self.prepare, rows)
                if ahead is not None:
                    yield usable(ahead, tally)
                ahead = coming
        if ahead is not None:
            yield usable(ahead, tally)

    def mask(self, batch: pa.RecordBatch) -> pa.Array:
        """Return which rows of a batch the recipe selects."""
        chosen = pa.array(np.ones(len(batch), bool))
        for field in SELECTED_BY:
            if wanted := getattr(self.config, f"{field}s"):
                chosen = pc.and_(chosen, pc.is_in(batch[field], pa.array(wanted, pa.string())))
        return chosen

    def prepare(self, row: Row) -> Row | Reason:
        """Return the row's latents row, still without mean and std but with its pixels, uint8 [H, W, 3]."""
        try:
            data = row["image"] if row["image"] is not None else Path(row["path"]).read_bytes()
        except OSError:
            return Reason.IMAGE_MISSING
        bucket = Size.parse(row["bucket"])
        picture = decode(data, max_pixels=self.config.max_pixels, at_least=bucket)
        if isinstance(picture, Reject):
            return picture.reason
        crop = cover_and_crop(picture.image, bucket)
        return {
            **{name: row[name] for name in COPIED},
            "original_height": row["height"],
            "original_width": row["width"],
            "crop_top": crop.top,
            "crop_left": crop.left,
            "target_height": bucket.height,
            "target_width": bucket.width,
            "pixels": np.asarray(crop.image),
        }

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


def usable(prepared: Iterator[Row | Reason], tally: Counter[str]) -> list[Row]:
    """Return the rows that have pixels, and count the others."""
    rows = []
    for found in prepared:
        if isinstance(found, Reason):
            tally[found.value] += 1
        else:
            rows.append(found)
    return rows
