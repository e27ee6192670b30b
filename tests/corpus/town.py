"""Hosts of unlike manners for fetchers in other processes: each has a loopback address of its own, all share a port."""

import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from drawn import png
from web import Handler, Server

FAST, SLOW, FORBIDS, LOST, BROKEN, LEADS_IN, LEADS_ON, STALLS, UNLISTED = (f"127.0.0.{11 + i}" for i in range(9))
GATED, GATED_TOO = "127.0.0.31", "127.0.0.32"
SILENT = "127.0.0.41"
"""Takes connections and never says a word, not even of its robots.txt."""
DEAD = "127.0.0.42"
"""Nothing listens there."""
TALKS = (FAST, SLOW, FORBIDS, LOST, BROKEN, LEADS_IN, LEADS_ON, STALLS, UNLISTED, GATED, GATED_TOO)
INSIDE = "127.0.0.1"
"""Where LEADS_IN sends who asks."""
REFUSALS = {FORBIDS: 403, LOST: 404, BROKEN: 500}
SLOW_S = 0.3


@dataclass(frozen=True)
class Asked:
    at_s: float
    host: str
    path: str


class Town:
    """What the hosts were asked for, what they have sent, and the switches that change their manners."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.log: list[Asked] = []
        self.sent: Counter[str] = Counter()
        self.waiting = 0
        self.lock = threading.Lock()
        self.mended = threading.Event()
        """BROKEN and STALLS answer as FAST does."""
        self.gate = threading.Event()
        """GATED and GATED_TOO answer."""
        self.ended = threading.Event()

    def url(self, host: str, number: int) -> str:
        return f"http://{host}:{self.port}/{number}.png"

    def pictures(self, start: int = 0) -> list[str]:
        """Return host/path of all that was asked for since an entry of the log, but for robots.txt."""
        return [f"{one.host}/{one.path}" for one in self.log[start:] if one.path != "robots.txt"]


class Citizen(Handler):
    """Answers as the host does that it was asked as; N.png is a picture that only N gives."""

    town: Town

    def do_GET(self) -> None:
        town, host, path = self.town, self.headers["Host"].partition(":")[0], self.path.lstrip("/")
        with town.lock:
            town.log.append(Asked(time.monotonic(), host, path))
        if host in (BROKEN, STALLS) and town.mended.is_set():
            host = FAST
        if path == "robots.txt":
            self.reply(404, {}, b"")
        elif host in REFUSALS:
            self.reply(REFUSALS[host], {}, b"")
        elif host in (LEADS_IN, LEADS_ON):
            self.reply(302, {"Location": f"http://{INSIDE if host == LEADS_IN else FAST}:{town.port}/{path}"}, b"")
        elif host == STALLS:
            town.ended.wait(60)
            self.hang_up()
        elif host in (GATED, GATED_TOO) and not self.let_through():
            self.hang_up()
        else:
            time.sleep(SLOW_S if host == SLOW else 0)
            self.reply(200, {"Content-Type": "image/png"}, png(seed=int(path.removesuffix(".png"))))
            with town.lock:
                town.sent[path] += 1

    def let_through(self) -> bool:
        """Wait for the gate; False where the other side goes away first."""
        town = self.town
        with town.lock:
            town.waiting += 1
        try:
            while not town.gate.wait(0.02):
                gone = select.select([self.connection], [], [], 0)[0] and not self.connection.recv(1, socket.MSG_PEEK)
                if gone or town.ended.is_set():
                    return False
            return True
        except ConnectionResetError:
            return False
        finally:
            with town.lock:
                town.waiting -= 1


@contextmanager
def town() -> Iterator[Town]:
    """Yield hosts that are being served on this machine."""
    handler = type("Told", (Citizen,), {})
    with ExitStack() as stack:
        first = stack.enter_context(Server((TALKS[0], 0), handler))
        found = handler.town = Town(first.server_address[1])
        servers = [first, *(stack.enter_context(Server((host, found.port), handler)) for host in TALKS[1:])]
        silent = stack.enter_context(socket.socket())
        silent.bind((SILENT, found.port))
        silent.listen(128)
        threads = [threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.02}) for one in servers]
        for thread in threads:
            thread.start()
        try:
            yield found
        finally:
            found.ended.set()
            for server, thread in zip(servers, threads, strict=True):
                server.shutdown()
                thread.join()
