"""Who takes part in the load test, and how each is started and ended: one process group, alone on the machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from ssd1b.trials.load.driver import READY_S, ROUTE
from ssd1b.trials.load.stand import MODEL, Stand
from ssd1b.trials.load.trace import Ask
from ssd1b.trials.local_nodes import children

OURS, ONE, BATCHES, DIFFUSERS = "ours", "one at a time", "batch, then run", "plain diffusers"
END_S = 60.0
"""How long one may take to end before what is left of it is killed: Ray ends process by process."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A server as a command."""

    name: str
    arguments: tuple[str, ...]
    """Of python; the port is added."""


def contestants(stand: Stand, rows: int, wait_s: float) -> tuple[Contestant, ...]:
    """Return all of them, ours first. Those that batch take up to so many pictures together."""
    told = ("--model", str(stand.bundle), "--adapters", str(stand.adapters))
    return (
        ours(model=MODEL, batch_rows=rows, max_replicas=1),
        Contestant(name=ONE, arguments=("-m", "ssd1b.trials.load.one_at_a_time", *told)),
        Contestant(
            name=BATCHES,
            arguments=("-m", "ssd1b.trials.load.batch_then_run", *told, "--rows", str(rows), "--wait", str(wait_s)),
        ),
        Contestant(name=DIFFUSERS, arguments=("-m", "ssd1b.trials.load.plain_diffusers", *told)),
    )


def ours(**settings: object) -> Contestant:
    """Return our endpoint with some of its settings changed."""
    pairs = (part for key, value in settings.items() for part in ("--set", f"{key}={value}"))
    return Contestant(name=OURS, arguments=("-m", "serve.app", "up", *pairs))


NULL = Contestant(name="null", arguments=("-m", "ssd1b.trials.load.null_server"))


@dataclass(frozen=True, kw_only=True)
class Server:
    """A contestant that runs."""

    url: str
    pid: int
    log: Path

    def processes(self) -> list[int]:
        """Return its process and all that came of it."""
        return [self.pid, *descendants(self.pid)]


@contextmanager
def running(
    contestant: Contestant,
    scratch: Path,
    environment: Mapping[str, str],
    ready: Ask,
    headers: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Within it, the contestant is up and has drawn its first picture. Afterwards nothing is left of it.

    Raises:
        RuntimeError: it does not come up; the message has the end of what it said.
    """
    port, log = free_port(), scratch / f"{contestant.name.replace(' ', '-').replace(',', '')}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, *contestant.arguments, "--port", str(port)],
            env={**os.environ, **environment}, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    server = Server(url=f"http://127.0.0.1:{port}", pid=process.pid, log=log)
    try:
        wait_for_picture(server, process, contestant.name, ready, headers)
        yield server
    finally:
        left = server.processes()
        process.send_signal(signal.SIGINT)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        kill(left)


def wait_for_picture(
    server: Server, process: "subprocess.Popen[bytes]", name: str, ready: Ask, headers: Mapping[str, str] | None
) -> None:
    """Ask for a picture until there is one."""
    end, why = time.monotonic() + READY_S, "it does not listen"
    while time.monotonic() < end:
        if process.poll() is not None:
            why = f"it ended with status {process.returncode}"
            break
        try:
            response = httpx.post(f"{server.url}{ROUTE}", json=ready.body(), timeout=READY_S, headers=headers)
            if response.status_code == 200:
                return
            why = f"it answers {response.status_code}: {response.text[:300]}"
        except httpx.TransportError as error:
            why = str(error)
        time.sleep(0.5)
    raise RuntimeError(f"{name} draws no picture: {why}. Its log ends with:\n{server.log.read_text()[-2000:]}")


def descendants(pid: int) -> list[int]:
    found = children(pid)
    return found + [below for child in found for below in descendants(child)]


def kill(processes: Sequence[int]) -> None:
    """End what still runs of these, and wait until it has ended."""
    end = time.monotonic() + END_S
    left = [pid for pid in processes if alive(pid)]
    while left and time.monotonic() < end:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)
        left = [pid for pid in left if alive(pid)]
    if left:
        raise RuntimeError(f"processes {left} do not end")


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked after does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
