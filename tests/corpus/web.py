"""A web of misbehaving hosts for the tests of the fetcher: a real server on a thread, every path a story of its own."""

import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from drawn import png

Response = tuple[int, dict[str, str], bytes]


class Web:
    """What the server answers, by host and path, and what it was asked. Hosts are told apart by the Host header."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.robots: dict[str, Response] = {}
        self.redirects: dict[str, str] = {}
        self.busy = 0
        self.busiest = 0
        self.lock = threading.Lock()
        self.ended = threading.Event()

    def url(self, path: str, host: str = "pictures.test") -> str:
        return f"http://{host}:{self.port}/{path}"

    async def resolve(self, host: str, _port: int) -> list[str]:
        """Every name is this machine, but for those that have no address."""
        if host.endswith(".nowhere.test"):
            raise OSError("no such host")
        return ["127.0.0.1"]


def answer(web: Web, path: str, host: str) -> Response:
    """Return the answer of a path; those of other doings are in Handler."""
    times = web.asked[f"{host}/{path}"]
    stories: dict[str, Response] = {
        "gone": (404, {}, b"gone"),
        "long-gone": (410, {}, b""),
        "secret": (403, {}, b""),
        "teapot": (418, {}, b""),
        "broken": (500, {}, b"oops"),
        "page.jpg": (200, {"Content-Type": "image/jpeg"}, b"<!DOCTYPE html><html>" + b" " * 5000),
        "liar.html": (200, {"Content-Type": "text/html"}, png(seed=7)),
        "empty": (200, {}, b""),
        "noai": (200, {"X-Robots-Tag": "noai, noimageai"}, png()),
        "other-bot": (200, {"X-Robots-Tag": "otherbot: noai"}, png()),
        "large": (200, {}, png() + bytes(300_000)),
        "loop": (302, {"Location": "/loop"}, b""),
        "to-file": (302, {"Location": "file:///etc/passwd"}, b""),
        "to-nothing": (302, {}, b""),
        "hop": (301, {"Location": web.url("ok-moved", "moved.test")}, b""),
    }
    if path.startswith(("ok", "slow-ok")):
        return 200, {"Content-Type": "image/png"}, png(seed=hash_of(path))
    if path.startswith("limited"):
        return (429, {"Retry-After": "0"}, b"") if times < 3 else (200, {}, png())
    if path.startswith("always-limited"):
        return 429, {"Retry-After": "3600"}, b""
    if path.startswith("shaky"):
        return (503, {}, b"") if times < 2 else (200, {}, png())
    if path in web.redirects:
        return 302, {"Location": web.redirects[path]}, b""
    return stories.get(path, (404, {}, b""))


def hash_of(path: str) -> int:
    return sum(map(ord, path)) % 256


class Handler(BaseHTTPRequestHandler):
    """Looks up the story and tells it, or hangs, drips or hangs up as the path says."""

    web: Web
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        web = self.web
        host, path = self.headers["Host"].partition(":")[0], self.path.lstrip("/")
        with web.lock:
            web.asked[f"{host}/{path}"] += 1
            web.agents.add(self.headers["User-Agent"])
        self.tell(path, host)

    def tell(self, path: str, host: str) -> None:
        web = self.web
        if path == "robots.txt":
            return self.reply(*web.robots.get(host, (404, {}, b"")))
        if path == "hang":
            web.ended.wait(30)
            return self.hang_up()
        if path == "cut":
            whole = png(seed=3)
            self.send_response(200)
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole[: len(whole) // 2])
            return self.hang_up()
        if path == "drip":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            for byte in png():
                if web.ended.wait(0.05):
                    break
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
            return self.hang_up()
        if path.startswith("slow-ok"):
            with web.lock:
                web.busy += 1
                web.busiest = max(web.busiest, web.busy)
            time.sleep(0.1)
            with web.lock:  # before the reply, after which the next request may come at once
                web.busy -= 1
        return self.reply(*answer(web, path, host))

    def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def hang_up(self) -> None:
        self.close_connection = True

    def handle(self) -> None:
        try:
            super().handle()
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.hang_up()  # the fetcher may stop reading when it has seen enough

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def certificate(folder: Path, name: str) -> Path:
    """Return a file with a key and a certificate of a name, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "certificate.pem"
    path.write_bytes(private + signed.public_bytes(pem))
    return path


@contextmanager
def served(pem: Path | None = None) -> Iterator[Web]:
    """Yield a web that is being served on this machine, over TLS where a key and certificate are given."""
    handler = type("Told", (Handler,), {})
    server = Server(("127.0.0.1", 0), handler)
    if pem is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    web = handler.web = Web(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
