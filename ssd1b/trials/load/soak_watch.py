"""What the processes of the endpoint tell while they run: counters of their bank, lines of their logs."""

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from ssd1b.trials.load.contestants import Server

EVERY_S = 5.0
COUNTERS = re.compile(
    r"^\w*?ssd1b_(?P<name>bank|bank_evictions|swap_seconds_count)(?:_total)?\{(?P<tags>[^}]*)\} (?P<value>\S+)$", re.M
)
OUTCOME, PROCESS = re.compile(r'outcome="(\w+)"'), re.compile(r'(?:WorkerId|replica)="([^"]+)"')
SOCKET, LISTENS = re.compile(r"socket:\[(\d+)\]"), "0A"
"""A descriptor that is a socket, and the state of one that listens (Linux, tcp_states.h)."""
SESSION = re.compile(r"/\S*/session_[\w-]+")
TROUBLE = re.compile(r"\b(ERROR|CRITICAL|WARNING)\b|Traceback|lost its replica")


@dataclass
class Watch:
    """Samples the counters until it is over: those of a process that is killed would be gone at the end."""

    server: Server
    samples: dict[tuple[str, str], float] = field(default_factory=dict)
    """By counter and process, the highest value seen."""
    looks: int = 0
    _exporters: list[str] = field(default_factory=list)

    def look(self) -> None:
        for url in self._exporters or self._found():
            for match in COUNTERS.finditer(read(url)):
                outcome = OUTCOME.search(match["tags"])
                name = outcome[1] if outcome else match["name"]
                process = ",".join(PROCESS.findall(match["tags"]))
                self.samples[name, process] = max(float(match["value"]), self.samples.get((name, process), 0.0))
        self.looks += 1

    def _found(self) -> list[str]:
        """Return where Prometheus would ask: the ports of the server's processes that answer as an exporter does."""
        urls = [f"http://127.0.0.1:{port}/metrics" for port in sorted(ports(self.server))]
        self._exporters = [url for url in urls if "ssd1b_" in read(url)]
        return self._exporters


def read(url: str) -> str:
    """Return the text of an exporter, "" of a port that is none."""
    try:
        answer = httpx.get(url, timeout=2)
    except (httpx.HTTPError, httpx.InvalidURL):
        return ""
    return answer.text if answer.status_code == 200 else ""


def ports(server: Server) -> set[int]:
    """Return the TCP ports that its processes listen on, from Linux's /proc."""
    theirs = {socket for pid in server.processes() for socket in sockets(pid)}
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {int(line[1].rpartition(":")[2], 16) for line in lines if line[3] == LISTENS and line[9] in theirs}


def sockets(pid: int) -> set[str]:
    """Return the inodes of a process's sockets; none if it has ended."""
    found: set[str] = set()
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            match = SOCKET.fullmatch(str(link.readlink()))
        except OSError:  # it has been closed meanwhile
            continue
        if match:
            found.add(match[1])
    return found


@contextmanager
def watching(server: Server) -> Iterator[Watch]:
    """Within it the counters are sampled."""
    watch, over = Watch(server), threading.Event()

    def run() -> None:
        while not over.wait(EVERY_S):
            watch.look()

    thread = threading.Thread(target=run, name="soak watch", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()


def session_of(server: Server) -> Path | None:
    """Return the folder that the server's Ray keeps its logs under."""
    for pid in server.processes():
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        if found := SESSION.search(line):
            return Path(found[0])
    return None


def trouble(logs: Path) -> dict[str, int]:
    """Return how often which kind of line that tells of trouble stands in the logs of Serve, numbers left out."""
    counted: Counter[str] = Counter()
    for file in sorted(logs.glob("serve/*.log")):
        for line in file.read_text(errors="replace").splitlines():
            if TROUBLE.search(line):
                text = line.partition(" -- ")[2] or line
                counted[re.sub(r"[0-9a-f]{6,}|\d+(\.\d+)?", "#", text)[:160]] += 1
    return dict(counted.most_common())
