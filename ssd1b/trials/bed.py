"""A distillation in processes of its own on a cluster of several nodes on this machine, both made to be hurt.

The nodes are real ones and die as real ones do (local_nodes.py); the job is what `python -m jobs.distill` runs.
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
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ssd1b.command import show
from ssd1b.elastic.feed import attempts
from ssd1b.recipes.distill import Distillation
from ssd1b.training import journal
from ssd1b.trials.local_nodes import LocalNodes, children

WAIT_S = 240
"""How long a run may take to go on before it counts as lost."""
NOTICE_S = 60.0
"""Until a draining node ends."""
TOLD, RESULT = "told.pickle", "result.json"
JOB = """
import os, pickle
from ssd1b.home import home
from ssd1b.persist import main
from ssd1b.training.newest import newest_step

def job(config):
    from ssd1b.training.trainer import distill
    return distill(config)

recipe = pickle.load(open(os.environ["FAULTS_RECIPE"], "rb"))
main({"faults": lambda: recipe}, job, lambda config: newest_step(home() / "distill" / config.run))
"""
"""What jobs.distill does, with a recipe from a file."""


def apart(module: str, config: Any, scratch: str) -> Any:
    """Run a module in a process of its own, which finds its config and leaves its result in the folder it is given.

    Ray decides about tokens when it is imported, and a cluster of several nodes asks for one.

    Raises:
        RuntimeError: it did not come to its end.
    """
    with TemporaryDirectory(prefix="nodes-", dir=scratch or None, ignore_cleanup_errors=True) as folder:
        (Path(folder) / TOLD).write_bytes(pickle.dumps(config))
        told = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_worker_niceness": "0"}
        done = subprocess.run([sys.executable, "-m", module, folder], env=os.environ | told, check=False)
        if done.returncode:
            raise RuntimeError(f"the run did not go on (status {done.returncode}); the lines above say why")
        return json.loads((Path(folder) / RESULT).read_text())


class Bed:
    """One run, the cluster it runs on, and what becomes of both."""

    def __init__(self, recipe: Distillation, home: Path, scratch: Path, nodes: int) -> None:
        """home is the storage root; scratch is where notices, the recipe and the job's log lie."""
        self.recipe, self.home, self.scratch, self.nodes = recipe, home, scratch, nodes
        self.root = home / "distill" / recipe.run

    @contextmanager
    def running(self) -> Iterator[dict[str, Any]]:
        """Within it, the cluster stands and the job runs. It gives the event of the first step."""
        self.cluster = LocalNodes(self.nodes)
        try:
            self.submit()
            yield self.wait_for_step(self.submitted_s, len(attempts(self.root)))
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
        env = {
            **os.environ, "SSD1B_HOME": str(self.home), "RAY_ADDRESS": self.cluster.address, "FAULTS_RECIPE": str(told)
        }  # fmt: skip
        env.pop("MLFLOW_TRACKING_URI", None)
        self.log = self.scratch / "job.log"
        self.submitted_s = time.time()
        with self.log.open("ab") as log:
            self.job = subprocess.Popen(
                [sys.executable, "-c", JOB, "faults"], env=env, stdout=log, stderr=subprocess.STDOUT
            )

    def end(self) -> None:
        """Wait until the job has ended well."""
        if status := self.job.wait():
            raise RuntimeError(f"the job ended with status {status}")

    # ---- waiting

    def wait_until_busy(self) -> None:
        """Wait until the group has trained for a while and stands between two checkpoints."""
        every = self.recipe.checkpoint_steps

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
        self.cluster.drain(self.cluster.nodes[-1], NOTICE_S)
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

    def controller(self) -> float:
        (pid,) = self.cluster.everywhere("TrainController")
        os.kill(pid, signal.SIGKILL)
        return time.time()

    def driver(self) -> float:
        (pid,) = children(self.job.pid)
        os.kill(pid, signal.SIGKILL)
        return time.time()

    def job_(self) -> float:
        now_s = time.time()
        self.job.kill()
        self.job.wait()
        self.submit()
        return now_s

    def head(self) -> float:
        now_s = time.time()
        port = self.cluster.port
        self.cluster.kill_all()
        self.cluster = LocalNodes(self.nodes, port)
        return now_s


EVENTS: dict[str, Callable[[Bed], float]] = {
    "grow": Bed.grow, "worker": Bed.worker, "node": Bed.node, "drain": Bed.drain, "spot": Bed.spot,
    "sigterm": Bed.sigterm, "controller": Bed.controller, "driver": Bed.driver, "job": Bed.job_, "head": Bed.head,
}  # fmt: skip
"""By name: a node is added; rank 0 is killed; a node is killed; a node is drained; a machine is taken back after a
notice; the processes of a node are asked to end; Ray Train's controller is killed; so is the driver; the whole job is
killed and started again; all nodes and the head are killed, and others come up at the same address."""
