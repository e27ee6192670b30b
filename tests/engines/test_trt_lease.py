"""Leases: of many processes that want one plan, one builds it; a dead builder is succeeded, a slow one does no harm.

The builders are real processes on a real file system. What they build is a file, for what is tested is who builds it.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd1b.engines.tensorrt.lease import Build, Building, Held, Pace, Seen, contend, decide, look, take

PACE = Pace(beat_s=0.1, stale_s=1.0)
HERE = Path(__file__).parent
PROGRAM = """
import sys, time
sys.path[:0] = [{here!r}]
from pathlib import Path
from trt_stand_in import job_of, stand_in
from ssd1b.engines.tensorrt import ensure
from ssd1b.engines.tensorrt.lease import Pace
from ssd1b.engines.tensorrt.options import Job, Target

library, _ = stand_in()
job = job_of(library, b"content")
home, build_s = Path(sys.argv[1]), float(sys.argv[2])


def build(job, timing_folder):
    with (home / "built").open("a") as log:
        log.write("x")
    time.sleep(build_s)
    return b"content"


ensure.build = build
Job.of = staticmethod(lambda *_: job)
Path(sys.argv[3]).touch()
while not (home / "go").exists():
    time.sleep(0.002)
while True:
    state = ensure.ensure_plans(home / "plans", {{"unet": Path()}}, Target("sm80"), pace=Pace(0.1, 1.0))
    if isinstance(state, ensure.Ready):
        print("built" if state.built else "waited", flush=True)
        break
    print("building by", state.by, flush=True)
    time.sleep(0.05)
"""


@pytest.fixture
def builder(home):
    """Start processes that want the plan; what they print is read back. None outlives the test."""
    program = home / "program.py"
    program.write_text(PROGRAM.format(here=str(HERE)))
    started = []

    (home / "go").touch()

    def start(build_s: float) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, program, home, str(build_s), home / f"ready-{len(started)}"],
            stdout=subprocess.PIPE, text=True, cwd=HERE.parents[1], env=os.environ | {"PYTHONPATH": "."},
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def builds(home: Path) -> int:
    return len((home / "built").read_text())


def until(condition, within_s: float = 30) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def test_of_processes_that_start_together_one_builds(builder, home):
    (home / "go").unlink()
    processes = [builder(1.0) for _ in range(4)]
    until(lambda: len(list(home.glob("ready-*"))) == 4, within_s=60)
    (home / "go").touch()
    outputs = [process.communicate(timeout=60)[0].split("\n") for process in processes]
    assert sorted(output[-2] for output in outputs) == ["built", "waited", "waited", "waited"]
    assert builds(home) == 1


def test_a_killed_builder_is_succeeded(builder, home):
    first = builder(60)
    until((home / "built").exists)
    second = builder(0.1)
    assert f"building by {os.uname().nodename} process {first.pid}" in second.stdout.readline()
    first.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    assert second.communicate(timeout=60)[0].endswith("built\n")
    assert time.monotonic() - killed < 10
    assert builds(home) == 2


def test_a_builder_that_was_taken_for_dead_does_no_harm(builder, home):
    first = builder(3)
    until((home / "built").exists)
    first.send_signal(signal.SIGSTOP)  # as a machine that swaps, or a file server that is away
    second = builder(0.1)
    assert second.communicate(timeout=60)[0].endswith("built\n")
    first.send_signal(signal.SIGCONT)
    assert first.communicate(timeout=60)[0].endswith("built\n")
    third = builder(0.1)
    assert third.communicate(timeout=60)[0] == "waited\n"
    assert builds(home) == 2
    assert [path.name for path in (home / "plans").glob("*.new")] == []


def test_a_lease_is_given_back_after_a_build_that_failed(tmp_path):
    def fails() -> None:
        with contend(tmp_path, PACE) as decision:
            assert isinstance(decision, Build)
            with contend(tmp_path, PACE) as other:
                assert isinstance(other, Building)
                assert str(os.getpid()) in other.by
            raise ValueError("no plan")

    with pytest.raises(ValueError, match="no plan"):
        fails()
    with contend(tmp_path, PACE) as decision:
        assert decision == Build(2)


def test_an_owner_that_lives_is_not_succeeded(tmp_path):
    assert take(tmp_path, 1, "me")
    with Held(tmp_path, 1, PACE):
        time.sleep(1.5)
        assert isinstance(decide(look(tmp_path), PACE), Building)
    assert decide(look(tmp_path), PACE) == Build(2)


def test_a_number_is_taken_once(tmp_path):
    assert take(tmp_path, 1, "me")
    assert not take(tmp_path, 1, "you")
    (tmp_path / "000001").rename(tmp_path / "000001.back")
    assert not take(tmp_path, 1, "you")  # it looked before the first was given back
    assert look(tmp_path).given_back


@given(
    number=st.integers(0, 9),
    age_s=st.floats(0, 100),
    given_back=st.booleans(),
    stale_s=st.floats(3, 50),
    owner=st.text(),
)
def test_who_builds_follows_from_what_is_seen(number, age_s, given_back, stale_s, owner):
    decision = decide(Seen(number, owner, age_s, given_back), Pace(1, stale_s))
    free = number == 0 or given_back or age_s > stale_s
    assert decision == (Build(number + 1) if free else Building(owner))


def test_a_pace_that_forgives_no_late_beat_is_refused():
    with pytest.raises(ValueError, match="at least three beats"):
        Pace(beat_s=10, stale_s=20)
