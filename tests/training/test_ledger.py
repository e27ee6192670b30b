"""What MLflow is told of a run: a child for each stage, once each, also through a server that was down meanwhile."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ssd1b import tracking
from ssd1b.recipes.distill import Distillation, Stage
from ssd1b.tracking.store import UnansweredError
from ssd1b.training import follow
from ssd1b.training.follow import Follower
from ssd1b.training.journal import EVENTS, Lines
from ssd1b.training.ledger import Ledger
from ssd1b.training.notes import Notes

CONFIG = Distillation(
    run="told", base="nano", latents="tiny", registered_name="student",
    stages=tuple(Stage(name=name, teacher="nano", carve=(name,), steps=4, lr=1e-3) for name in ("mid", "down")),
)  # fmt: skip


def step(number: int, stage: str) -> dict[str, Any]:
    return {"kind": "step", "step": number, "stage": stage, "steps": 2, "metrics": {"loss": 1 / number, "lr": 1e-3}}


def stage_end(root: Path, stage: str) -> dict[str, Any]:
    folder = root / f"stage-{stage}"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "config.json").write_text("{}")
    (folder / "README.md").write_text(f"# {stage}")
    return {"kind": "stage", "stage": stage, "teacher": "nano", "folder": str(folder), "teacher_forward_s": 2.0,
            "student_forward_s": 1.0, "teacher_parameters": 20, "student_parameters": 10}  # fmt: skip


def points(run_id: str, name: str) -> list[tuple[int, float]]:
    return [(one.step, one.value) for one in tracking.connect().get_metric_history(run_id, name)]


def children(run_id: str) -> dict[str, Any]:
    client = tracking.connect()
    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
    return {run.data.tags["stage"]: run for run in found}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_a_run_has_a_child_for_each_stage_and_jobs_that_follow_go_on_with_them(
    home: Path, empty_store: Path, root: Path
) -> None:
    shutil.copy(empty_store, home / "mlflow.db")
    lines = Lines(root / EVENTS)
    ledger = Ledger(CONFIG, Notes(root))
    run_id = ledger.begin(slices=4)
    with Follower(root, ledger.handle, "followed.json"):
        lines.add(kind="start", step=0, world_size=2)
        lines.add(**step(2, "mid"))
        lines.add(**step(4, "mid"))
        lines.add(**stage_end(root, "mid"))
    ledger.end("FAILED")

    again = Ledger(CONFIG, Notes(root))
    assert again.begin(slices=4) == run_id
    with Follower(root, again.handle, "followed.json") as follower:
        lines.add(**step(6, "down"))
        lines.add(**step(8, "down"))
        lines.add(**stage_end(root, "down"))
    assert not follower.waiting
    version = again.register(root / "stage-down", {"kind": "student"})
    assert again.register(root / "stage-down", {"kind": "student"}) == version
    again.end("FINISHED")

    assert points(run_id, "loss") == [(2, 1 / 2), (4, 1 / 4), (6, 1 / 6), (8, 1 / 8)]
    told = children(run_id)
    assert {name: run.info.status for name, run in told.items()} == {"mid": "FINISHED", "down": "FINISHED"}
    assert points(told["down"].info.run_id, "loss") == [(2, 1 / 6), (4, 1 / 8)]
    assert told["mid"].data.params["lr"] == "0.001"
    client = tracking.connect()
    models = {model.name: model for model in client.search_logged_models([client.get_run(run_id).info.experiment_id])}
    assert models.keys() == {"student-mid", "student-down"}
    registered = tracking.find("models:/student/1")
    assert registered.model_id == models["student-down"].model_id
    assert (tracking.download(registered.uri) / "README.md").read_text() == "# down"


class Server:
    """A real MLflow server that can be killed and started again at the same place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port),
             "--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}",
             "--artifacts-destination", str(self.folder / "artifacts")],
            stdout=(self.folder / "server.log").open("ab"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2)
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self.folder / "server.log").read_text()[-2000:])

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path, empty_store: Path) -> Iterator[Server]:
    shutil.copy(empty_store, tmp_path / "server.db")
    made = Server(tmp_path)
    made.start()
    yield made
    made.kill()


def wait_for(found: Any) -> None:
    end = time.monotonic() + 30
    while not found():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("home")
def test_a_server_that_is_killed_in_mid_run_gets_everything_once_it_is_back(
    server: Server, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(follow, "PAUSES_S", (0.2,))
    lines = Lines(root / EVENTS)
    ledger = Ledger(CONFIG, Notes(root))
    run_id = ledger.begin(slices=4)
    with Follower(root, ledger.handle, "followed.json") as follower:
        lines.add(**step(1, "mid"))
        wait_for(lambda: not follower.waiting)
        server.kill()
        for number in (2, 3, 4):
            lines.add(**step(number, "mid"))
        wait_for(lambda: follower.unanswered >= 2)
        assert follower.waiting
        server.start()
        wait_for(lambda: not follower.waiting)
        lines.add(**stage_end(root, "mid"))
    assert not follower.unanswered
    assert points(run_id, "loss") == [(1, 1), (2, 1 / 2), (3, 1 / 3), (4, 1 / 4)]
    said = capsys.readouterr()
    assert (said.out + said.err).count("does not answer") == 1
    assert "MLflow answers again" in said.out + said.err

    server.kill()
    lines.add(**step(5, "down"))
    with Follower(root, Ledger(CONFIG, Notes(root)).handle, "followed.json", patience_s=0.5) as last:
        pass
    assert last.unanswered
    with pytest.raises(UnansweredError, match="does not answer"):
        ledger.register(root / "stage-mid", {})
    server.start()
    with Follower(root, Ledger(CONFIG, Notes(root)).handle, "followed.json") as last:
        pass
    assert not last.waiting
    assert points(run_id, "loss")[-1] == (5, 1 / 5)


@pytest.mark.usefixtures("home")
def test_a_first_start_without_a_store_says_so_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UnansweredError, match=r"no MLflow store answers at http://127.0.0.1:9: start it or mend"):
        Ledger(CONFIG, Notes(root)).begin(slices=4)
    assert Notes(root).get("run_id") is None


def test_a_run_without_a_teacher_is_told_too() -> None:
    metrics = {"loss": 0.5, "task": 0.5, "feature": 0.0, "lr": 1e-3, "step_s": 1.0, "pictures_per_s": 4.0}
    told = follow.step_line({"step": 1, "stage": "all", "metrics": metrics}, total=2, world_size=1)
    assert "task 0.5000  feature 0.0000" in told
    assert "output" not in told
