"""The loss on held-out rows at each checkpoint, and the best checkpoint of a stage by it.

The rows, their noise, timesteps and captions are the same every time, so that two checkpoints differ by their weights
alone. All workers share the rows and learn the same sum; the best student so far lies in `<root>/best-<stage>/`, where
a restart finds it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
import torch.distributed

from ssd1b.elastic.rows import COLUMNS
from ssd1b.training import checkpoint
from ssd1b.training.conditioning import Batch, Conditioning
from ssd1b.training.losses import total
from ssd1b.training.pupil import Pupil

Rows = Mapping[str, Sequence[Any]]

EPOCH = 2**32 - 1
"""That held-out rows are drawn in: one that no run gets to, so that no noise of it is trained on."""
BATCH = 8
"""Most rows of a pass."""


def held_out(folder: Path, count: int) -> list[Rows]:
    """Return the `count` held-out rows of a latents folder that have the smallest sample ids, in batches of one size.

    Sample ids are hashes, so these are rows of all kinds; and the same however the folder is partitioned.

    Raises:
        ValueError: it has fewer; the message says how they get there.
    """
    found: list[tuple[int, Path]] = []
    for path in sorted(folder.glob("bucket=*/*.parquet")):
        told = pq.read_table(path, columns=["sample_id", "split"], partitioning=None)
        out = told.filter(pc.not_equal(told["split"], "train"))["sample_id"].to_pylist()
        found += [(sample_id, path) for sample_id in out]
    if len(found) < count:
        raise ValueError(
            f"validate_rows={count}, but {folder} has {len(found)} held-out rows: encode some with jobs.encode, "
            f"--set splits=[] (both splits; only rows of the split 'train' are trained on), or set validate_rows=0"
        )
    chosen = sorted(found)[:count]
    batches: list[Rows] = []
    for bucket in sorted({path.parent for _, path in chosen}):
        paths = sorted({path for _, path in chosen if path.parent == bucket})
        ids = [sample_id for sample_id, path in chosen if path.parent == bucket]
        wanted = pa.array(ids, pa.uint64())
        tables = [pq.read_table(path, columns=list(COLUMNS), partitioning=None) for path in paths]
        rows = pa.concat_tables([table.filter(pc.is_in(table["sample_id"], wanted)) for table in tables])
        rows = rows.sort_by("sample_id")
        for start in range(0, len(rows), BATCH):
            part = rows.slice(start, BATCH)
            batches.append({**part.to_pydict(), "epoch": [EPOCH] * len(part), "real": [True] * len(part)})
    return batches


class Validation:
    """What one worker does of it. All workers call `judge` after the same steps."""

    def __init__(
        self, batches: Sequence[Rows], conditioning: Conditioning, root: Path, rank: int, world_size: int
    ) -> None:
        """batches: what `held_out` returned, the same on all workers."""
        self.batches, self.conditioning, self.root = batches, conditioning, root
        self.rank, self.world_size = rank, world_size
        self.best: dict[str, float] = {}
        """The smallest loss of a stage so far."""

    def judge(self, pupil: Pupil, step: int) -> float:
        """Return the loss of the pupil before `step`, keep its weights if they are its stage's best, and at the end of
        the stage give it the best.

        Raises:
            OSError: the disk is full or not writable.
        """
        stage = pupil.stage.name
        folder = self.root / f"best-{stage}"
        if stage not in self.best:
            self.best[stage] = noted(folder)
        with pupil.averaged():
            loss = self.loss(pupil)
            better = loss < self.best[stage]
            if better and self.rank == 0:
                weights = {"student": dict(pupil.student.state_dict())}
                checkpoint.save(folder, step, weights, {"stage": stage, "loss": loss})
                checkpoint.retain(folder, 1)
        self.wait()
        if better:
            self.best[stage] = loss
        elif pupil.updates == pupil.stage.steps:
            best = checkpoint.latest(folder)
            assert best is not None, f"{folder} was there when this start began"
            pupil.become(checkpoint.load(best)[0]["student"])
        return loss

    @torch.no_grad()
    def loss(self, pupil: Pupil) -> float:
        """Return the mean loss of the held-out rows under the stage's weights, the same on all workers."""
        module, pupil.module = pupil.module, pupil.student  # a data-parallel wrapper would wait for the other workers
        try:
            summed = torch.zeros(2, dtype=torch.float64, device=pupil.device)
            for rows in self.batches[self.rank :: self.world_size]:
                batch = self.batch(rows)
                loss_B = total(pupil.errors(batch, self.conditioning.alphas_cumprod), pupil.stage.weights)
                summed += torch.stack([loss_B.double().sum(), torch.tensor(float(len(loss_B))).to(summed)])
        finally:
            pupil.module = module
        if self.world_size > 1:
            torch.distributed.all_reduce(summed)
        loss, rows_seen = summed.tolist()
        return float(loss / rows_seen)

    def batch(self, rows: Rows) -> Batch:
        """Return held-out rows with the noise they always have: of no run's seed, no caption dropped."""
        return self.conditioning.batch(rows, seed=0)

    def wait(self) -> None:
        """Let rank 0 write first."""
        if self.world_size > 1:
            torch.distributed.barrier()


def noted(folder: Path) -> float:
    """Return the loss of the best student that an earlier start has left, or infinity."""
    best = checkpoint.latest(folder)
    return float(json.loads((best / checkpoint.MANIFEST).read_text())["state"]["loss"]) if best else float("inf")
