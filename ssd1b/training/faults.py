"""jobs.benchmark faults: all that can be taken from an elastic run is taken, one after the other, on a real cluster.

Several nodes on this machine, a job in a process of its own, the nano family. After each event the run must go on by
itself, or by starting the same job again; what that cost is read from what its workers noted (recovery.py).
"""

import json
import os
import pickle
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from ssd1b.command import show
from ssd1b.corpus.encoder import SCHEMA
from ssd1b.corpus.manifest import write_table
from ssd1b.elastic.feed import attempts
from ssd1b.elastic.rows import Latents
from ssd1b.recipes.benchmark import Faults
from ssd1b.recipes.distill import Distillation, Stage
from ssd1b.training import journal
from ssd1b.training.local_nodes import NODE_CPUS, LocalNodes
from ssd1b.training.recovery import Recovery, steps_lost, table, twice_and_never

WAIT_S = 240
"""How long a run may take to go on before it counts as lost."""
TOLD, RESULT = "faults.pickle", "rows.json"
JOB = """
import pickle, sys
from ssd1b.training.trainer import distill
print(distill(pickle.load(open(sys.argv[1], "rb"))))
"""


def faults(config: Faults) -> dict[str, Any]:
    """Run the events of a recipe in order, print what they cost as a table, and return it.

    Raises:
        ValueError: no such event.
        RuntimeError: the run did not go on.
    """
    if unknown := [name for name in config.events if name not in EVENTS]:
        raise ValueError(f"no event {unknown[0]!r}: choose from {', '.join(EVENTS)}")
    with TemporaryDirectory(prefix="faults-", dir=config.scratch or None) as scratch:
        (Path(scratch) / TOLD).write_bytes(pickle.dumps(config))
        # a process of its own: Ray decides about tokens when it is imported, and this cluster asks for one
        told = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_worker_niceness": "0"}
        done = subprocess.run([sys.executable, "-m", __name__, scratch], env=os.environ | told, check=False)
        if done.returncode:
            raise RuntimeError(f"the run did not go on (status {done.returncode}); the lines above say why")
        rows = json.loads((Path(scratch) / RESULT).read_text())
    for line in table([{name: str(value) for name, value in row.items() if name != "phases"} for row in rows]):
        show(line)
    return {
        "checkpoint_steps": config.checkpoint_steps,
        "events": rows,
        "repeated": sum(row["repeated"] for row in rows),
        "missed": sum(row["missed"] for row in rows),
        "most_seconds": max(row["seconds"] for row in rows),
    }


def main(scratch: Path) -> None:
    """Run the events that lie in a folder, and leave their rows there."""
    config: Faults = pickle.loads((scratch / TOLD).read_bytes())
    bed = Bed(config, scratch)
    with bed.running():
        for name in config.events:
            bed.suffer(name)
        rows = bed.rows()
    (scratch / RESULT).write_text(json.dumps(rows))


class Bed:
    """The run, the cluster it runs on, and what becomes of both."""

    def __init__(self, config: Faults, scratch: Path) -> None:
        self.config, self.scratch = config, scratch
        self.home = scratch / "home"
        write_latents(self.home / "latents" / "made-up", config.rows, config.seed)
        self.recipe = recipe(config, spot=f"file:{scratch}/spot-{{node}}")
        self.root = self.home / "distill" / self.recipe.run
        self.latents = Latents.open(self.home / "latents" / "made-up")
        self.order = self.latents.order(
            global_batch=self.recipe.global_batch, slices=self.recipe.slices or 1, seed=self.recipe.seed
        )
        self.recoveries: list[Recovery] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within it, the cluster stands and the job runs."""
        self.cluster = LocalNodes(self.config.nodes)
        try:
            self.submit()
            started = self.wait_for_step(time.time(), 0)
            show(f"started: {self.went_on('start', self.submitted_s, started, (0, 0), 0)}")
            yield
        except Exception:
            show(f"the end of the job's log:\n{self.log.read_text(errors='replace')[-3000:]}")
            raise
        finally:
            self.job.kill()
            self.job.wait()
            self.cluster.kill_all()

    def submit(self) -> None:
        """Start the job, or start it again."""
        told = self.scratch / "recipe.pickle"
        told.write_bytes(pickle.dumps(self.recipe))
        env = {**os.environ, "SSD1B_HOME": str(self.home), "RAY_ADDRESS": self.cluster.address}
        env.pop("MLFLOW_TRACKING_URI", None)
        self.log = self.scratch / "job.log"
        self.submitted_s = time.time()
        with self.log.open("ab") as log:
            self.job = subprocess.Popen(
                [sys.executable, "-c", JOB, str(told)], env=env, stdout=log, stderr=subprocess.STDOUT
            )

    def suffer(self, name: str) -> None:
        """Wait until the run is in the middle of something, let the event happen, and note how the run went on."""
        self.wait_until_busy()
        known, workers = len(attempts(self.root)), attempts(self.root)[-1].world_size
        happened_s = EVENTS[name](self)
        ready = self.wait_for_step(happened_s, known)
        after = attempts(self.root)[-1].world_size
        recovery = self.went_on(name, happened_s, ready, (workers, after), known)
        self.recoveries.append(recovery)
        show(f"{name}: {recovery}")

    def went_on(
        self, name: str, happened_s: float, ready: dict[str, Any], workers: tuple[int, int], known: int
    ) -> Recovery:
        """Return what an event cost; known is how many starts there had been."""
        starts = attempts(self.root)
        seconds = ready["time_s"] - happened_s
        return Recovery(
            event=name,
            workers=workers,
            steps_lost=steps_lost(self.root, len(starts) - 1),
            seconds=round(seconds, 1),
            noticed_s=round(seconds - sum(ready["phases"].values()), 1),
            phases=ready["phases"],
            starts=len(starts) - known,
            first_step=starts[-1].first_step,
        )

    # ---- waiting

    def wait_until_busy(self) -> None:
        """Wait until the group has trained for a while and stands between two checkpoints."""
        every = self.config.checkpoint_steps

        def busy() -> bool:
            steps: list[int] = [
                event["step"] for event in journal.events(self.root) if event["kind"] in ("step", "ready")
            ]
            first = attempts(self.root)[-1].first_step
            return bool(steps) and steps[-1] >= first + every and steps[-1] % every >= every // 2

        self.wait(busy, "steps between two checkpoints")

    def wait_for_step(self, since_s: float, known: int) -> dict[str, Any]:
        """Wait for the first step of a start that came after the first `known`, and return its event."""
        found: list[dict[str, Any]] = []

        def ready() -> bool:
            if len(attempts(self.root)) > known:
                events = journal.events(self.root)
                found.extend(one for one in events if one["kind"] == "ready" and one["time_s"] > since_s)
            return bool(found)

        self.wait(ready, "the first step of the next group")
        return found[0]

    def wait(self, happened: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + WAIT_S
        while not happened():
            if self.job.poll() is not None:
                raise RuntimeError(f"the job ended with status {self.job.returncode} instead of {what}")
            if time.monotonic() > end:
                raise RuntimeError(f"no sign of {what} in {WAIT_S} s")
            time.sleep(0.1)

    # ---- events; each returns when it happened, seconds since 1970

    def grow(self) -> float:
        self.cluster.add()
        return time.time()

    def worker(self) -> float:
        start = next(one for one in reversed(journal.events(self.root)) if one["kind"] == "start")
        os.kill(start["pid"], signal.SIGKILL)
        return time.time()

    def node(self) -> float:
        now_s = time.time()
        self.cluster.kill(self.cluster.nodes[-1])
        return now_s

    def drain(self) -> float:
        now_s = time.time()
        self.cluster.drain(self.cluster.nodes[-1], self.config.notice_s)
        self.goes(now_s)
        return now_s

    def spot(self) -> float:
        now_s = time.time()
        (self.scratch / f"spot-{self.cluster.nodes[-1].node_id}").write_text("taken back in two minutes")
        self.goes(now_s)
        return now_s

    def sigterm(self) -> float:
        now_s = time.time()
        if not self.cluster.terminate(self.cluster.nodes[-1]):
            raise RuntimeError("no worker to send SIGTERM to")
        self.goes(now_s)
        return now_s

    def goes(self, since_s: float) -> None:
        """Wait until the workers have left, and take away the node that was to go."""

        def left() -> bool:
            return any(one["kind"] == "leave" and one["time_s"] > since_s for one in journal.events(self.root))

        self.wait(left, "workers that leave")
        self.cluster.kill(self.cluster.nodes[-1])

    def driver(self) -> float:
        now_s = time.time()
        self.job.kill()
        self.job.wait()
        self.submit()
        return now_s

    def head(self) -> float:
        now_s = time.time()
        self.cluster.kill_all()
        self.job.kill()
        self.job.wait()
        self.cluster = LocalNodes(self.config.nodes)
        self.submit()
        return now_s

    # ---- the table

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each event: the samples of the steps from where the run went on until the next event."""
        ends = [each.first_step for each in self.recoveries[1:]]
        last = next(one["step"] for one in reversed(journal.events(self.root)) if one["kind"] in ("step", "ready"))
        begins = [0, *(each.first_step for each in self.recoveries[1:])]
        rows = []
        for each, begin, end in zip(self.recoveries, begins, [*ends, last], strict=True):
            repeated, missed = twice_and_never(self.root, self.order, self.latents, range(begin, end))
            fields = asdict(each)
            rows.append(
                {
                    "event": each.event,
                    "workers": f"{each.workers[0]} -> {each.workers[1]}",
                    "steps lost": each.steps_lost,
                    "repeated": repeated,
                    "missed": missed,
                    "seconds": each.seconds,
                    "until its processes": each.noticed_s,
                    "starts": each.starts,
                    "phases": fields["phases"],
                }
            )
        return rows


EVENTS: dict[str, Callable[[Bed], float]] = {
    "grow": Bed.grow, "worker": Bed.worker, "node": Bed.node, "drain": Bed.drain, "spot": Bed.spot,
    "sigterm": Bed.sigterm, "driver": Bed.driver, "head": Bed.head,
}  # fmt: skip
"""By name: a node is added; rank 0 is killed; a node is killed; a node is drained; a machine is taken back after a
notice; the processes of a node are asked to end; the job is killed and started again; so are all nodes and the head."""


def recipe(config: Faults, spot: str) -> Distillation:
    """Return a distillation of the nano family that outlasts the events."""
    stage = Stage(name="all", teacher="nano", carve=("mid", "down", "up"), steps=config.steps, lr=1e-5)
    return Distillation(
        run="faults", base="nano", latents="made-up", stages=(stage,), registered_name="faults", global_batch=8,
        slices=4, num_workers=(1, config.most_workers), cpus_per_worker=NODE_CPUS, resize_interval_s=5.0,
        checkpoint_steps=config.checkpoint_steps, log_steps=1, seed=config.seed, spot_notices=(spot,),
    )  # fmt: skip


def write_latents(folder: Path, rows: int, seed: int) -> None:
    """Write rows of latents of 128 pixels, of chance."""
    random = np.random.default_rng(seed)
    shape = (4, 16, 16)
    table_ = pa.Table.from_pylist(
        [
            {
                "sample_id": i,
                "mean": random.normal(0, 0.9, shape).astype(np.float16).tobytes(),
                "std": np.full(shape, 0.02, np.float16).tobytes(),
                **dict.fromkeys(("original_height", "original_width", "target_height", "target_width"), 128),
                **dict.fromkeys(("crop_top", "crop_left"), 0),
                "captions": [f"thing {i}"],
                "split": "train",
            }
            for i in range(rows)
        ],
        schema=SCHEMA,
    )
    write_table(table_, folder / "bucket=128x128" / "part-00000-0000.parquet", row_group_rows=64)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
