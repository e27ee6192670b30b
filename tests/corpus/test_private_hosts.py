"""Picture servers inside one's own network: those that the recipe names are fetched from, and no other."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from web import Web, served

from ssd1b.command import configure
from ssd1b.corpus.fetch.addresses import named, parse
from ssd1b.corpus.fetch.client import Network
from ssd1b.corpus.fetch.failure import Failure
from ssd1b.corpus.fetch.fetcher import Fetcher
from ssd1b.corpus.reasons import Reason
from ssd1b.recipes.ingest import RECIPES, Fetch

PORTS = st.integers(1, 65535)
HOSTS = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,8}[a-zA-Z0-9])?(\.[a-zA-Z0-9]{1,5}){0,2}", fullmatch=True)


@pytest.fixture
def web() -> Iterator[Web]:
    with served() as found:
        yield found


def fetch(web: Web, folder: Path, url: str, *hosts: str) -> bytes | Failure:
    """Return what becomes of a URL where the recipe names these hosts; all names are this machine."""
    config = Fetch(contact="me@example.org", host_gap_s=0, read_s=2, total_s=4, attempts=1, private_hosts=hosts)

    async def run() -> bytes | Failure:
        async with Fetcher(config, folder / "robots", Network(resolve=web.resolve)) as fetcher:
            return await fetcher.picture(url)

    return asyncio.run(run())


def reason(found: bytes | Failure) -> Reason | None:
    return found.reason if isinstance(found, Failure) else None


@pytest.mark.parametrize(
    ("host", "listed", "expected"),
    [
        ("own.test", ("own.test:PORT",), None),
        ("own.test", ("other.test:1", "OWN.test:PORT"), None),
        ("OWN.test", ("own.test:PORT",), None),
        ("127.0.0.1", ("127.0.0.1:PORT",), None),
        ("own.test", (), Reason.URL_PRIVATE),
        ("own.test", ("own.test",), Reason.URL_PRIVATE),
        ("own.test", ("own.test:1",), Reason.URL_PRIVATE),
        ("own.test", ("test:PORT", "n.test:PORT", "own.test.:PORT"), Reason.URL_PRIVATE),
        ("own.test", ("127.0.0.1:PORT",), Reason.URL_PRIVATE),
        ("2130706433", ("127.0.0.1:PORT",), Reason.URL_PRIVATE),
    ],
)
def test_a_private_host_is_fetched_from_where_it_is_named(
    web: Web, tmp_path: Path, host: str, listed: tuple[str, ...], expected: Reason | None
) -> None:
    found = fetch(web, tmp_path, web.url("ok", host), *(name.replace("PORT", str(web.port)) for name in listed))
    assert reason(found) is expected, found
    assert sum(web.asked.values()) == (0 if expected else 2), "robots.txt and the picture, or nothing"
    if isinstance(found, Failure):
        assert f"does not name {host.lower()}:{web.port}" in found.detail


@pytest.mark.parametrize(("named_too", "expected"), [(False, Reason.REDIRECT_REFUSED), (True, None)])
def test_a_named_host_leads_to_named_hosts_only(
    web: Web, tmp_path: Path, named_too: bool, expected: Reason | None
) -> None:
    listed = [f"own.test:{web.port}", *([f"moved.test:{web.port}"] if named_too else [])]
    found = fetch(web, tmp_path, web.url("hop", "own.test"), *listed)
    assert reason(found) is expected, found
    assert web.asked["own.test/hop"] == 1, "the redirect was never met"
    assert web.asked["moved.test/ok-moved"] == (1 if named_too else 0)


@given(HOSTS, PORTS)
def test_an_entry_stands_for_what_a_url_of_it_connects_to(host: str, port: int) -> None:
    url = parse(f"http://{host}:{port}/a.png")
    if isinstance(url, Failure):
        return  # a number that is no address
    (pair,) = named([f"{host}:{port}"])
    assert pair == (url.raw_host.decode(), url.port or 80)
    assert named([host]) == {(url.raw_host.decode(), 80), (url.raw_host.decode(), 443)}


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert named(["[fd00::A]:8080"]) == {("fd00::a", 8080)}


@pytest.mark.parametrize(
    "entry",
    ["http://own.test", "own.test/pictures", "*.test", "", "own test", "own.test:", "own.test:0", "fd00::1",
     "10.0.0.0/8", "own.test:123456", "me@own.test", "own.test\n"],
)  # fmt: skip
def test_what_is_no_host_is_refused_by_the_recipe(entry: str) -> None:
    with pytest.raises(ValueError, match="give HOST or HOST:PORT"):
        Fetch(private_hosts=(entry,))


def test_the_command_line_names_them_as_a_list() -> None:
    assert RECIPES["laion"]().fetch.private_hosts == ()
    setting = f"fetch.private_hosts={json.dumps(['own.test', '10.0.0.7:8080'])}"
    assert configure(RECIPES, "laion", [setting]).fetch.private_hosts == ("own.test", "10.0.0.7:8080")
