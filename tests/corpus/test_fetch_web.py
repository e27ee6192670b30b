"""The fetcher against a real server that hangs, drips, lies, redirects, limits and dies."""

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpcore
import pytest
from drawn import png
from web import Web, certificate, hash_of, served

from ssd1b.corpus.fetch.client import Network
from ssd1b.corpus.fetch.failure import Failure
from ssd1b.corpus.fetch.fetcher import Fetcher
from ssd1b.corpus.reasons import Reason
from ssd1b.recipes.ingest import Fetch

QUICK = {
    "contact": "me@example.org", "host_gap_s": 0.0, "connect_s": 1.0, "read_s": 0.5, "total_s": 1.0, "attempts": 3,
    "backoff_s": 0.01, "most_bytes": 100_000, "per_host": 4, "concurrency": 16,
}  # fmt: skip


@pytest.fixture
def web() -> Iterator[Web]:
    with served() as found:
        yield found


def fetch(web: Web, folder: Path, *urls: str, network: Network | None = None, **changes: Any) -> list[bytes | Failure]:
    """Return what becomes of the URLs, all at once, with the private address of the server allowed."""
    config = Fetch(**{**QUICK, **changes})

    async def run() -> list[bytes | Failure]:
        allowed = network or Network(allow_private=True, resolve=web.resolve)
        async with Fetcher(config, folder / "robots", allowed) as fetcher:
            return list(await asyncio.gather(*map(fetcher.picture, urls)))

    return asyncio.run(run())


def reason(found: bytes | Failure) -> Reason | None:
    return found.reason if isinstance(found, Failure) else None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("ok1", None), ("liar.html", None), ("other-bot", None), ("hop", None), ("shaky", None), ("limited", None),
        ("gone", Reason.URL_GONE), ("long-gone", Reason.URL_GONE), ("secret", Reason.URL_FORBIDDEN),
        ("teapot", Reason.URL_REFUSED), ("broken", Reason.URL_SERVER_ERROR), ("noai", Reason.NOAI),
        ("page.jpg", Reason.URL_NOT_AN_IMAGE), ("empty", Reason.URL_NOT_AN_IMAGE), ("large", Reason.URL_TOO_LARGE),
        ("loop", Reason.REDIRECT_REFUSED), ("to-file", Reason.REDIRECT_REFUSED),
        ("to-nothing", Reason.REDIRECT_REFUSED), ("always-limited", Reason.URL_RATE_LIMITED),
        ("cut", Reason.URL_UNREACHABLE), ("hang", Reason.URL_TIMEOUT), ("drip", Reason.URL_TIMEOUT),
    ],
)  # fmt: skip
def test_every_story_has_its_name(web: Web, tmp_path: Path, path: str, expected: Reason | None) -> None:
    (found,) = fetch(web, tmp_path, web.url(path))
    assert reason(found) is expected, found
    assert web.asked[f"pictures.test/{path}"] >= 1
    if path == "ok1":
        assert found == png(seed=hash_of("ok1"))


def test_only_what_may_pass_is_asked_again(web: Web, tmp_path: Path) -> None:
    paths = ("gone", "secret", "noai", "page.jpg", "broken", "cut", "hang", "always-limited", "limited", "shaky")
    fetch(web, tmp_path, *[web.url(path, f"{path}.test") for path in paths], dead_after=100)
    times = {path: web.asked[f"{path}.test/{path}"] for path in paths}
    once = dict.fromkeys(("gone", "secret", "noai", "page.jpg"), 1)
    assert times == {**once, "broken": 3, "cut": 3, "hang": 3, "always-limited": 1, "limited": 3, "shaky": 2}


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/", "http://localhost/", "http://[::1]/", "http://0x7f.1/", "http://2130706433/", "http://127.1/",
     "http://169.254.169.254/latest/", "http://10.0.0.1/", "https://192.168.0.1/", "http://[fe80::1]/",
     "http://[::ffff:127.0.0.1]/", "http://0.0.0.0/"],
)  # fmt: skip
def test_no_first_address_inside_is_connected_to(url: str, web: Web, tmp_path: Path) -> None:
    (found,) = fetch(web, tmp_path, url, network=Network())
    assert reason(found) is Reason.URL_PRIVATE, found


@pytest.mark.parametrize("inside", ["http://169.254.169.254/latest/", "http://inside.test/"])
def test_no_redirect_leads_inside(inside: str, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server goes for a public address here, so that the rule is on; where it sends us to is refused by it."""
    inner, connected = httpcore.AnyIOBackend.connect_tcp, []

    async def resolve(host: str, _port: int) -> list[str]:
        return {"pictures.test": ["93.184.216.34"], "inside.test": ["10.1.2.3"]}.get(host, [host])

    async def connect_tcp(self: object, host: str, port: int, *rest: Any, **named: Any) -> Any:
        connected.append(host)
        return await inner(self, {"93.184.216.34": "127.0.0.1"}[host], port, *rest, **named)

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect_tcp)
    web.redirects["out"] = inside
    (found,) = fetch(web, tmp_path, web.url("out"), network=Network(resolve=resolve))
    assert reason(found) is Reason.REDIRECT_REFUSED
    assert web.asked["pictures.test/out"] == 1, "the redirect was never met"
    assert set(connected) == {"93.184.216.34"}


def test_a_name_that_turns_private_at_the_second_look_is_not_connected_to(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: each connection goes to the address of the very look-up that was checked."""
    looked, connected = [], []

    async def rebinding(host: str, _port: int) -> list[str]:
        looked.append(host)
        return ["93.184.216.34"] if len(looked) % 2 else ["127.0.0.1"]

    async def connect_tcp(_self: object, host: str, *_: Any, **__: Any) -> Any:
        connected.append(host)
        raise httpcore.ConnectError("not in a test")

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect_tcp)
    found = fetch(web, tmp_path, web.url("ok", "rebind.test"), network=Network(resolve=rebinding))
    assert len(looked) >= 2, "the name was to be looked up twice"
    assert reason(found[0]) is Reason.URL_PRIVATE
    assert set(connected) == {"93.184.216.34"}


def test_one_private_address_among_several_is_enough(web: Web, tmp_path: Path) -> None:
    async def mixed(_host: str, _port: int) -> list[str]:
        return ["93.184.216.34", "10.0.0.7"]

    (found,) = fetch(web, tmp_path, web.url("ok"), network=Network(resolve=mixed))
    assert reason(found) is Reason.URL_PRIVATE


def test_names_without_an_address_and_ports_without_a_server(web: Web, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        urls = (web.url("ok", "x.nowhere.test"), f"http://pictures.test:{port}/ok", "ftp://pictures.test/ok")
        found = fetch(web, tmp_path, *urls)
    assert list(map(reason, found)) == [Reason.URL_DNS, Reason.URL_UNREACHABLE, Reason.URL_MALFORMED]


def test_a_server_that_speaks_no_tls(web: Web, tmp_path: Path) -> None:
    (found,) = fetch(web, tmp_path, web.url("ok").replace("http:", "https:"))
    assert reason(found) is Reason.URL_TLS


def test_certificates_are_checked_by_name_though_the_connection_goes_to_an_address(tmp_path: Path) -> None:
    pem = certificate(tmp_path, "pictures.test")
    trusting = ssl.create_default_context(cafile=str(pem))
    with served(pem) as web:
        for name, tls, expected in (
            ("pictures.test", trusting, None),
            ("other.test", trusting, Reason.URL_TLS),
            ("pictures.test", None, Reason.URL_TLS),
        ):
            network = Network(allow_private=True, resolve=web.resolve, tls=tls)
            (found,) = fetch(web, tmp_path, web.url("ok", name).replace("http:", "https:"), network=network)
            assert reason(found) is expected, found
        assert web.asked["pictures.test/ok"] == 1


@pytest.mark.parametrize(
    ("robots", "expected"),
    [
        ((200, {}, b"User-agent: *\nDisallow: /ok"), Reason.ROBOTS_DISALLOWED),
        ((200, {}, b"User-agent: *\nDisallow: /\n\nUser-agent: ssd-corpus\nAllow: /"), None),
        ((404, {}, b""), None),
        ((403, {}, b""), None),
        ((503, {}, b""), Reason.ROBOTS_DISALLOWED),
        ((429, {}, b""), Reason.ROBOTS_DISALLOWED),
        ((302, {"Location": "/robots.txt"}, b""), None),
        ((302, {"Location": "http://other.test:PORT/robots.txt"}, b""), None),
        ((200, {}, b"\xff\xfe\x00junk" * 100), None),
    ],
)
def test_robots_are_asked_once_and_obeyed(
    web: Web, tmp_path: Path, robots: tuple[int, dict[str, str], bytes], expected: Reason | None
) -> None:
    status, headers, body = robots
    web.robots["pictures.test"] = (status, {k: v.replace("PORT", str(web.port)) for k, v in headers.items()}, body)
    urls = [web.url(f"ok{i}") for i in range(5)]
    found = fetch(web, tmp_path, *urls, dead_after=100, attempts=1)
    assert set(map(reason, found)) == {expected}
    fetched = sum(web.asked[f"pictures.test/ok{i}"] for i in range(5))
    assert fetched == (0 if expected else 5)
    if robots[0] < 300:
        assert web.asked["pictures.test/robots.txt"] == 1
        fetch(web, tmp_path, *urls)
        assert web.asked["pictures.test/robots.txt"] == 1, "another run of the same day does not ask again"


def test_the_redirects_target_is_asked_for_its_robots_too(web: Web, tmp_path: Path) -> None:
    web.robots["moved.test"] = (200, {}, b"User-agent: *\nDisallow: /")
    (found,) = fetch(web, tmp_path, web.url("hop"))
    assert reason(found) is Reason.ROBOTS_DISALLOWED
    assert web.asked["moved.test/ok-moved"] == 0


def test_a_dead_host_does_not_stall_the_rest(web: Web, tmp_path: Path) -> None:
    """Forty rows of a host that hangs among forty of one that answers: a few wait in vain, the others are not asked."""
    urls = [web.url(*row) for i in range(40) for row in (("hang", "dead.test"), (f"ok{i}", "alive.test"))]
    started = time.monotonic()
    found = fetch(web, tmp_path, *urls, dead_after=4, attempts=2)
    seconds = time.monotonic() - started
    assert [reason(one) for one in found[1::2]] == [None] * 40
    reasons = [reason(one) for one in found[::2]]
    assert set(reasons) == {Reason.URL_TIMEOUT, Reason.HOST_DEAD}
    assert reasons.count(Reason.HOST_DEAD) >= 30
    assert web.asked["dead.test/hang"] <= 8
    assert seconds < 5, "one after the other they would take 40 s"


def test_concurrency_is_bounded_overall_and_per_host(web: Web, tmp_path: Path) -> None:
    urls = [web.url(f"slow-ok{i}", f"host{i % 6}.test") for i in range(36)]
    fetch(web, tmp_path, *urls, concurrency=5, per_host=2)
    assert 3 <= web.busiest <= 5
    web.busiest = 0
    fetch(web, tmp_path, *[web.url(f"slow-ok{i}") for i in range(12)], concurrency=16, per_host=2)
    assert web.busiest == 2


def test_requests_to_a_host_keep_their_distance(web: Web, tmp_path: Path) -> None:
    started = time.monotonic()
    fetch(web, tmp_path, *[web.url(f"ok{i}") for i in range(6)], host_gap_s=0.1)
    assert time.monotonic() - started >= 0.6, "six pictures and robots.txt: six gaps"


def test_we_say_who_we_are(web: Web, tmp_path: Path) -> None:
    fetch(web, tmp_path, web.url("ok"))
    assert web.agents == {"ssd-corpus/1.0 (+me@example.org)"}
