"""Laps: the parts of a start add up to all of it, from the process's first moment."""

import subprocess
import sys
import time

import pytest

from ssd1b.training.laps import Laps

PROGRAM = """
import time
from ssd1b.training.laps import since_process_start
laps = since_process_start()
laps.lap("imports")
time.sleep(0.2)
laps.lap("sleep")
print(laps.seconds["imports"], laps.seconds["sleep"], time.time())
"""


def test_laps_count_from_the_start_of_the_process() -> None:
    before_s = time.time()
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=30)
    imports_s, sleep_s, end_s = map(float, done.stdout.split())
    assert sleep_s == pytest.approx(0.2, abs=0.1)
    assert before_s == pytest.approx(end_s - imports_s - sleep_s, abs=0.25), "ticks of a hundredth, and a fork"


def test_a_lap_ends_where_the_next_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [10.0]
    monkeypatch.setattr(time, "time", lambda: now_s[0])
    laps = Laps()
    for name, seconds in {"models": 2.0, "first slice": 0.5}.items():
        now_s[0] += seconds
        laps.lap(name)
    assert laps.seconds == {"models": 2.0, "first slice": 0.5}
