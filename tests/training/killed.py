"""A process that saves checkpoints, killed in the middle of one, and what it has left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ssd1b.training import checkpoint


def newest_after_a_kill(saver: str, root: Path, *, first_line: bytes, delay_s: float) -> dict[str, Any]:
    """Kill a program that saves while it writes; return the newest checkpoint's state, its weights checked.

    The program saves into the folder step after step, each step's tensor "a" full of its number. Once it has said
    `first_line` and is writing again, it is killed so long after; without a delay, shown to have met a save half done.
    """
    process = subprocess.Popen([sys.executable, "-c", saver, str(root)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == first_line
        for _ in range(20_000):
            if list(root.glob("*.tmp-*/*.safetensors")):
                break
            time.sleep(0.0005)
        time.sleep(delay_s)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        assert process.wait() == -signal.SIGKILL
    if delay_s == 0.0:
        assert list(root.glob("*.tmp-*")), "the kill must have met a save half done"
    newest = checkpoint.latest(root)
    assert newest is not None
    found, state = checkpoint.load(newest)
    assert state["step"] == checkpoint.step_of(newest)
    assert torch.equal(found["student"]["a"], torch.full((4_000_000,), float(state["step"])))
    return state
