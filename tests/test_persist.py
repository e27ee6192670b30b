"""A job that outlives its process: real processes, killed for real."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssd1b import persist

WORK = """
import os, signal, sys, time
from pathlib import Path
from ssd1b import persist
persist.follow_parent()
folder, ends = Path(sys.argv[1]), sys.argv[2].split(",")
start = len(list(folder.glob("start-*")))
(folder / f"start-{start}").write_text(str(os.getpid()))
end = ends[min(start, len(ends) - 1)]
if end.startswith("step:"):
    (folder / "step").write_text(str(start + 1))
    end = end.removeprefix("step:")
if end == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if end == "sleep":
    time.sleep(60)
sys.exit(int(end))
"""
JOB = """
import sys
from pathlib import Path
from ssd1b import persist
folder = Path(sys.argv[1])
def progress():
    step = folder / "step"
    return int(step.read_text()) if step.exists() else 0
command = [sys.executable, "-c", sys.argv[3], *sys.argv[1:3]]
sys.exit(persist.persist(command, progress, wait_s=float(sys.argv[4])) % 256)
"""


def start(folder: Path, ends: str, wait_s: float = 0.01) -> "subprocess.Popen[str]":
    """Start a job whose process ends in these ways, one after the other; the last of them for ever."""
    return subprocess.Popen(
        [sys.executable, "-c", JOB, str(folder), ends, WORK, str(wait_s)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def starts(folder: Path) -> int:
    return len(list(folder.glob("start-*")))


def wait_for_start(folder: Path, number: int) -> int:
    """Return the process of a start, once it runs."""
    path = folder / f"start-{number}"
    end = time.monotonic() + 20
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < end, "the work did not start"
        time.sleep(0.02)
    return int(path.read_text())


@pytest.mark.parametrize(("ends", "status", "expected"), [
    ("0", 0, 1),
    ("2", 2, 1),
    ("kill,0", 0, 2),
    ("1,75,2", 2, 3),
    ("kill,1,75,kill,0", 0, 5),
])  # fmt: skip
def test_it_is_started_again_until_it_ends_by_itself(tmp_path: Path, ends: str, status: int, expected: int) -> None:
    job = start(tmp_path, ends)
    said, _ = job.communicate(timeout=30)
    assert job.returncode == status
    assert starts(tmp_path) == expected
    assert said.count("it is started again") == expected - 1
    assert said.count("killed by SIGKILL") == ends.split(",")[: expected - 1].count("kill")


def test_without_progress_it_is_given_up_and_with_progress_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persist, "FUTILE", 2)
    monkeypatch.setattr(persist, "LONGEST_WAIT_S", 0.01)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the test's own are to stay

    def run(folder: Path, ends: str) -> int:
        folder.mkdir()
        step = folder / "step"
        return persist.persist(
            [sys.executable, "-c", WORK, str(folder), ends], lambda: int(step.read_text()) if step.exists() else 0
        )

    assert run(tmp_path / "stuck", "1") == 1
    assert starts(tmp_path / "stuck") == 3
    assert run(tmp_path / "slow", "1,1,step:1,1,step:1,1,0") == 0
    assert starts(tmp_path / "slow") == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_it_ends_and_so_does_the_work(tmp_path: Path, number: signal.Signals) -> None:
    job = start(tmp_path, "sleep")
    work = wait_for_start(tmp_path, 0)
    job.send_signal(number)
    if number == signal.SIGINT:
        os.kill(work, number)  # as a terminal does, which tells every process of the job
    said, _ = job.communicate(timeout=30)
    assert starts(tmp_path) == 1
    assert "started again" not in said
    assert not alive(work)


def test_told_to_end_between_two_starts_it_ends_at_once(tmp_path: Path) -> None:
    job = start(tmp_path, "kill", wait_s=50)
    assert job.stdout is not None
    assert "it is started again in 50 s" in job.stdout.readline()
    told_s = time.monotonic()
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=30)
    assert time.monotonic() - told_s < 10
    assert starts(tmp_path) == 1


def test_the_work_ends_with_a_job_that_is_killed(tmp_path: Path) -> None:
    job = start(tmp_path, "sleep")
    work = wait_for_start(tmp_path, 0)
    assert alive(work)
    job.kill()
    job.wait()
    end = time.monotonic() + 10
    while alive(work):
        assert time.monotonic() < end, "the work outlived its job"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Does a process run? One that has ended and that nobody has asked for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_job_as_a_command_is_watched_over_by_itself(tmp_path: Path) -> None:
    """A bad recipe ends with its message and status, once; a good one prints one JSON line last."""
    script = tmp_path / "job.py"
    script.write_text(
        "import os, signal, sys\n"
        "from dataclasses import dataclass\n"
        "from pathlib import Path\n"
        "from ssd1b.persist import main\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Config:\n"
        "    deaths: int = 1\n"
        "mark = Path(sys.argv[0]).with_suffix('.starts')\n"
        "def job(config):\n"
        "    starts = int(mark.read_text()) if mark.exists() else 0\n"
        "    mark.write_text(str(starts + 1))\n"
        "    if starts < config.deaths:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return {'starts': starts + 1}\n"
        "main({'nano': Config}, job, lambda config: 0)\n"
    )

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=False)

    done = run("nano")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith('{"starts": 2')
    refused = run("nano", "--set", "death=3")
    assert refused.returncode == 2
    assert refused.stderr.count("did you mean 'deaths'") == 1
