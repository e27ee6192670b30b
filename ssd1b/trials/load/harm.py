"""What can be done to an endpoint: every way to hurt it, each with the proof that it was hurt."""

import os
import resource
import signal
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from ssd1b.trials.load.contestants import Server, alive
from ssd1b.trials.load.driver import ROUTE
from ssd1b.trials.load.stand import MODEL
from ssd1b.trials.local_nodes import command

APPLICATION = "ssd1b"
REPLICA, INGRESS = f"ray::ServeReplica:{APPLICATION}:Engine", f"ray::ServeReplica:{APPLICATION}:Ingress"
CONTROLLER, PROXY = "ray::ServeController", "ray::ProxyActor"
COME_BACK_S = 180.0
AWAY_S = 8.0
"""How long what is taken away stays away."""
SLOW_CLIENTS = 20
HUGE_BYTES = 64 * 2**20
MALFORMED = (b"", b"{", b"[]", b"null", b'{"prompt": }', b'{"prompt": 7}', b"\xff\xfe\x00",
             b'{"prompt": "x", "n": 1e999}', b'{"prompt": "x", "size": "axb"}', b'{"prompt": "\\ud800"}',
             b"[" * 100_000)  # fmt: skip
TRICKS = ("../../../etc/passwd", "/etc/passwd", "style-01/../../home/accounts.db", "..", ".", "style-01\0", "%2e%2e%2f",
          "models:/ssd1b-nano/1", "file:///etc/passwd", "style-01;drop table entries", "' OR 1=1 --",
          "a" * 300)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Our endpoint while it is hurt."""

    server: Server
    home: Path
    key: str
    """Of an account that no load is counted of."""
    connections: int

    def pids(self, name: str) -> list[int]:
        """Return its processes whose title begins so."""
        return [pid for pid in self.server.processes() if command(pid).startswith(name) and alive(pid)]

    def post(self, body: bytes | Mapping[str, Any], path: str = ROUTE) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        told: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
        return httpx.post(f"{self.server.url}{path}", headers=headers, timeout=120, **told)

    def refuses(self, answers: Sequence[httpx.Response], what: str) -> str:
        """Return how often it said which status.

        Raises:
            RuntimeError: one of them is no refusal.
        """
        wrong = [one for one in answers if not 400 <= one.status_code < 500]
        if wrong:
            raise RuntimeError(f"{what}: answered {wrong[0].status_code} instead of a refusal: {wrong[0].text[:300]}")
        counted = Counter(one.status_code for one in answers)
        return f"{len(answers)} {what}, refused with " + ", ".join(f"{n} x {code}" for code, n in counted.items())


def killed(endpoint: Endpoint, name: str, most: int) -> str:
    """Kill processes of a title with SIGKILL, and wait until as many others are in their place."""
    there = endpoint.pids(name)
    if not there:
        raise RuntimeError(f"no process is called {name}: nothing could be killed")
    victims = there[:most]
    began = time.monotonic()
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    while any(alive(pid) for pid in victims):
        time.sleep(0.05)
    while len(now := [pid for pid in endpoint.pids(name) if pid not in victims]) < len(there):
        if time.monotonic() - began > COME_BACK_S:
            raise RuntimeError(f"{name}: {len(there)} before, {len(now)} more than {COME_BACK_S:g} s after the kill")
        time.sleep(0.2)
    return f"killed {len(victims)} of {len(there)}; as many again after {time.monotonic() - began:.1f} s"


def locked(file: Path) -> str:
    """Keep everybody else from writing to a SQLite file for a while (and from reading, unless it has a journal)."""
    with closing(sqlite3.connect(file, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        try:
            with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            why = str(error)
        else:
            raise RuntimeError(f"{file.name} is not locked")
        time.sleep(AWAY_S)
        holder.execute("ROLLBACK")
    return f"{file.name} for {AWAY_S:g} s: {why}"


def slow_bodies(endpoint: Endpoint) -> str:
    """Send bodies at a byte a second, from several clients at once."""
    host, port = endpoint.server.url.removeprefix("http://").split(":")
    head = f"POST {ROUTE} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {endpoint.key}\r\ncontent-length: 5000\r\n\r\n"
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(SLOW_CLIENTS)]
        for one in slow:
            one.sendall(head.encode())
        sent = 0
        end = time.monotonic() + AWAY_S
        while time.monotonic() < end:
            for one in slow:
                one.sendall(b" ")
            sent += 1
            time.sleep(1)
    return f"{len(slow)} clients sent {sent} bytes each"


def huge_bodies(endpoint: Endpoint) -> str:
    """Announce a body that is too long and send it; without announcing it, send it in chunks."""
    body = b'{"prompt": "' + b"x" * HUGE_BYTES + b'"}'

    def chunks() -> Any:
        for at in range(0, len(body), 2**16):
            yield body[at : at + 2**16]

    said = []
    for content in (body, chunks()):
        try:
            answer = httpx.post(f"{endpoint.server.url}{ROUTE}", content=content, timeout=120,
                                headers={"authorization": f"Bearer {endpoint.key}"})  # fmt: skip
        except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError) as error:
            said.append(f"broken off ({type(error).__name__})")
        else:
            endpoint.refuses([answer], "huge body")
            said.append(str(answer.status_code))
    return f"{HUGE_BYTES >> 20} MiB, announced and in chunks: {' and '.join(said)}"


def malformed(endpoint: Endpoint) -> str:
    return endpoint.refuses([endpoint.post(body) for body in MALFORMED], "malformed bodies")


def path_tricks(endpoint: Endpoint) -> str:
    """Name files and registry entries where a name of an adapter belongs."""
    asked = [endpoint.post({"prompt": "x", "lora": name, "num_inference_steps": 1}) for name in TRICKS]
    return endpoint.refuses(asked, "names")


def idle_connections(endpoint: Endpoint) -> str:
    """Open connections and say nothing on them."""
    host, port = endpoint.server.url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        opened = 0
        why = ""
        for _ in range(endpoint.connections):
            try:
                stack.enter_context(socket.create_connection((host, int(port)), timeout=5))
            except OSError as error:
                why = f", then: {error}"
                break
            opened += 1
        time.sleep(AWAY_S)
        answer = httpx.get(f"{endpoint.server.url}/healthz", timeout=60)
        if answer.status_code != 200:
            raise RuntimeError(f"with {opened} idle connections /healthz answers {answer.status_code}")
    return f"{opened} of {endpoint.connections} connections{why}"


def private_urls(endpoint: Endpoint) -> str:
    """Give addresses inside this machine where an address may be given, and listen there for who comes."""
    came: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def hear() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # closed
                    return
                came.append(connection.recv(200).decode(errors="replace"))
                connection.close()

        threading.Thread(target=hear, daemon=True).start()
        drawn = {"prompt": "x", "num_inference_steps": 2}
        hosts = (f"127.0.0.1:{port}", f"localhost:{port}", f"[::ffff:127.0.0.1]:{port}", f"2130706433:{port}",
                 f"0.0.0.0:{port}", "169.254.169.254")  # fmt: skip
        answers = [endpoint.post({"input": {**drawn, "image": f"http://{host}/a.png"}}, "/v1/predictions")
                   for host in hosts]  # fmt: skip
        said = endpoint.refuses(answers, "pictures at private addresses")
        hooked = [{"input": drawn, "webhook": f"https://{host}/", "version": MODEL} for host in hosts]
        hooks = Counter(endpoint.post(body, "/v1/predictions").status_code for body in hooked)
        time.sleep(AWAY_S)
        listener.shutdown(socket.SHUT_RDWR)
    if came:
        raise RuntimeError(f"{len(came)} requests came to a private address, the first: {came[0][:200]}")
    return f"{said}; as many webhooks, answered {dict(hooks)}; nobody came to them"


def nothing(endpoint: Endpoint) -> str:
    return f"{len(endpoint.pids(REPLICA))} replicas"


def raise_limit(connections: int) -> int:
    """Let this process, and those it starts, open as many files as connections need; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 1000
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


FAULTS: dict[str, Callable[[Endpoint], str]] = {
    "none": nothing,
    "replica": lambda endpoint: killed(endpoint, REPLICA, 1),
    "replicas": lambda endpoint: killed(endpoint, REPLICA, 99),
    "ingress": lambda endpoint: killed(endpoint, INGRESS, 99),
    "controller": lambda endpoint: killed(endpoint, CONTROLLER, 1),
    "proxy": lambda endpoint: killed(endpoint, PROXY, 99),
    "registry": lambda endpoint: locked(endpoint.home / "mlflow.db"),
    "accounts": lambda endpoint: locked(endpoint.home / "accounts.db"),
    "slow_bodies": slow_bodies,
    "huge_bodies": huge_bodies,
    "malformed": malformed,
    "idle_connections": idle_connections,
    "path_tricks": path_tricks,
    "private_urls": private_urls,
}
"""By name: what is done, for as long as it lasts; what it returns proves that it was done."""
