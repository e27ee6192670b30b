"""The pure rules of the fetcher: addresses, robots, retries and the standing of a host, over whole spaces of inputs."""

import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import IPv4Address, IPv6Address, ip_address

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd1b.corpus.fetch.addresses import NAT64, NOT_PUBLIC_V4, NOT_PUBLIC_V6, follow, is_public, parse
from ssd1b.corpus.fetch.failure import BREAKING, Failure
from ssd1b.corpus.fetch.hosts import Standing, answered, failed, refusal
from ssd1b.corpus.fetch.retry import pause_s, retry_after_s
from ssd1b.corpus.fetch.robots import Robots, Rule, canonical, fits, opted_out
from ssd1b.corpus.fetch.robots import parse as parse_robots
from ssd1b.corpus.fetch.sniff import is_picture
from ssd1b.corpus.reasons import Reason
from ssd1b.recipes.ingest import Fetch

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.ip_addresses())
def test_no_address_is_public_that_the_standard_library_calls_private(address: IPv4Address | IPv6Address) -> None:
    if is_public(str(address)):
        if address in NAT64:
            address = IPv4Address(int(address) & 0xFFFFFFFF)
        assert address.is_global
        flaws = ("private", "loopback", "link_local", "multicast", "reserved", "unspecified")
        assert not [flaw for flaw in flaws if getattr(address, f"is_{flaw}")]


@pytest.mark.parametrize("network", [*NOT_PUBLIC_V4, *NOT_PUBLIC_V6], ids=str)
def test_a_refused_network_is_refused_from_its_first_to_its_last_address(network: object) -> None:
    assert not is_public(str(network[0]))  # type: ignore[index]
    assert not is_public(str(network[-1]))  # type: ignore[index]


@given(st.sampled_from(NOT_PUBLIC_V4).flatmap(lambda network: st.ip_addresses(network=network)))
def test_a_private_address_stays_private_in_every_ipv6_disguise(address: IPv4Address) -> None:
    number = int(address)
    six_to_four = str(IPv6Address((0x2002 << 112) | (number << 80)))
    for disguise in (f"::ffff:{address}", f"::{address}", f"64:ff9b::{address}", six_to_four):
        assert not is_public(disguise)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::8.8.8.8", "172.32.0.0"])
def test_the_public_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f000001", "fe80::1%eth0", "2606::1%eth0", "1.2.3.4/8"])
def test_what_is_no_plain_address_is_not_public(text: str) -> None:
    assert not is_public(text)


@pytest.mark.parametrize(
    "text",
    ["", "no url", "ftp://a.b/c", "file:///etc/passwd", "javascript:alert(1)", "//a.b/c", "http://", "http:///x",
     "http://a.b:0/", "http://a.b:99999/", "http://[::1/", "http://exa mple.com/\x00", "http://" + "a" * 9000],
)  # fmt: skip
def test_what_cannot_be_asked_for_is_malformed(text: str) -> None:
    found = parse(text)
    assert isinstance(found, Failure)
    assert found.reason is Reason.URL_MALFORMED


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_malformed(text: str) -> None:
    for candidate in (text, f"http://{text}", f"https://a.test/{text}"):
        found = parse(candidate)
        assert isinstance(found, Failure) or (found.scheme in ("http", "https") and found.host)


def test_urls_lose_their_fragment_and_password_and_keep_the_rest() -> None:
    found = parse(" https://user:pass@Bücher.example:8443/ä b?q=1#top ")
    assert isinstance(found, httpx.URL)
    assert str(found) == "https://xn--bcher-kva.example:8443/%C3%A4%20b?q=1"


@pytest.mark.parametrize(
    ("location", "leads"),
    [("/b", "https://a.test/b"), ("//c.test/d", "https://c.test/d"), ("?q", "https://a.test/x?q")],
)
def test_redirects_are_read_relative_to_where_they_stand(location: str, leads: str) -> None:
    assert str(follow(httpx.URL("https://a.test/x"), location)) == leads


@pytest.mark.parametrize("location", ["file:///etc/passwd", "gopher://a.test/", "http://[", "data:image/png;base64,AA"])
def test_redirects_out_of_the_web_are_refused(location: str) -> None:
    found = follow(httpx.URL("https://a.test/x"), location)
    assert isinstance(found, Failure)
    assert found.reason is Reason.REDIRECT_REFUSED


PATTERN = st.text(alphabet="ab/*$", max_size=8)
PATH = st.text(alphabet="ab/$", max_size=10).map(lambda text: f"/{text}")


@given(PATTERN, PATH)
def test_a_robots_pattern_fits_as_the_same_regular_expression_does(pattern: str, path: str) -> None:
    body, end = (pattern[:-1], r"\Z") if pattern.endswith("$") else (pattern, "")
    assert fits(pattern, path) is bool(re.match(".*".join(map(re.escape, body.split("*"))) + end, path))


def test_a_hostile_robots_pattern_is_not_slow() -> None:
    assert not fits("/" + "a*" * 2000 + "b", "/" + "a" * 4000)


RULES = st.lists(st.builds(Rule, allow=st.booleans(), pattern=PATTERN.filter(bool)), max_size=6)


@given(RULES, PATH)
def test_the_longest_rule_decides_and_allow_wins_a_tie(rules: list[Rule], path: str) -> None:
    allowed = Robots((("*", tuple(rules)),)).allows("any", path)
    fitting = [rule for rule in rules if fits(rule.pattern, path)]
    longest = max((len(rule.pattern) for rule in fitting), default=0)
    assert allowed is (not fitting or any(rule.allow for rule in fitting if len(rule.pattern) == longest))


ROBOTS = """\ufeff# hello
User-agent: *
Disallow: /private   # not here
Disallow: /*.gif$
Allow: /private/open

User-Agent: SSD-Corpus/2.0
User-agent: other
crawl-delay: 10
Disallow: /own
Disallow:

User-agent: ssd-corpus
Disallow: /more%2e
"""


@pytest.mark.parametrize(
    ("product", "path", "allowed"),
    [
        ("stranger", "/", True), ("stranger", "/private", False), ("stranger", "/private/open/x", True),
        ("stranger", "/a.gif", False), ("stranger", "/a.gif?x", True), ("stranger", "/own", True),
        ("ssd-corpus", "/own/a", False), ("ssd-corpus", "/private", True), ("ssd-corpus", "/more.", False),
        ("other", "/own", False), ("other", "/more.", True), ("ssd-corpus", "/robots.txt", True),
    ],
)  # fmt: skip
def test_robots_groups(product: str, path: str, allowed: bool) -> None:
    assert parse_robots(ROBOTS).allows(product, path) is allowed


@given(st.text(max_size=200))
def test_any_text_is_a_robots_txt(text: str) -> None:
    parse_robots(text).allows("ssd-corpus", "/a")


@given(st.text(max_size=30))
def test_percent_encoding_has_one_form(path: str) -> None:
    assert canonical(canonical(path)) == canonical(path)


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        ([], None), (["noai"], "noai"), (["index, NoImageAI"], "noimageai"), (["none"], "none"), (["noindex"], None),
        (["otherbot: noai"], None), (["ssd-corpus: noai"], "noai"), (["otherbot: noindex", "noai"], "noai"),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"], "noai"), (["max-snippet: 5, noai"], "noai"),
        (["otherbot: nofollow, ssd-corpus: noai"], "noai"), (["*: noai"], "noai"),
    ],
)  # fmt: skip
def test_who_is_addressed_by_x_robots_tag(values: list[str], refused: str | None) -> None:
    assert opted_out(values, "ssd-corpus", ("noai", "noimageai", "none")) == refused


@given(st.integers(0, 10**6))
def test_retry_after_is_seconds_or_a_date(seconds: int) -> None:
    assert retry_after_s(str(seconds), NOW) == seconds
    assert retry_after_s(format_datetime(NOW + timedelta(seconds=seconds), usegmt=True), NOW) == seconds


@given(st.text(max_size=40))
def test_any_retry_after_is_a_wait_or_nothing(value: str) -> None:
    found = retry_after_s(value, NOW)
    assert found is None or found >= 0


@given(
    attempt=st.integers(0, 200), attempts=st.integers(1, 200), base_s=st.floats(0.01, 10), longest_s=st.floats(1, 100),
    asked_s=st.none() | st.floats(0, 1000), jitter=st.floats(0, 1, exclude_max=True),
)  # fmt: skip
def test_pauses(
    attempt: int, attempts: int, base_s: float, longest_s: float, asked_s: float | None, jitter: float
) -> None:
    pause = pause_s(attempt, attempts=attempts, base_s=base_s, longest_s=longest_s, asked_s=asked_s, jitter=jitter)
    if attempt + 1 >= attempts or (asked_s or 0) > longest_s:
        assert pause is None
    else:
        assert pause is not None
        assert (asked_s or 0) <= pause <= longest_s
        assert pause >= min(longest_s, base_s * 2**attempt) / 2


LIMITS = Fetch(dead_after=3, dead_for_s=60, longest_pause_s=30)
EVENTS = st.lists(
    st.tuples(st.floats(0, 40), st.none() | st.sampled_from(sorted(BREAKING | {Reason.URL_GONE}))), max_size=40
)


@given(EVENTS)
def test_a_host_is_closed_just_after_enough_failures_in_a_row(events: list[tuple[float, Reason | None]]) -> None:
    standing, now, row = Standing(), 0.0, 0
    for wait, reason in events:
        now += wait
        if (refused := refusal(standing, now)) is not None:
            assert refused.reason in (Reason.HOST_DEAD, Reason.URL_RATE_LIMITED)
            assert row >= LIMITS.dead_after
            continue
        breaking = reason in BREAKING
        row = row + 1 if breaking else 0
        failure = Failure(reason=reason) if reason else None
        standing = failed(standing, failure, now, LIMITS) if failure else answered(standing)
        assert (refusal(standing, now) is not None) is (row >= LIMITS.dead_after)
        assert refusal(standing, now + LIMITS.dead_for_s) is None


def test_a_host_that_asks_for_a_long_wait_gets_it() -> None:
    limited = Failure(reason=Reason.URL_RATE_LIMITED, retry_after_s=3600)
    standing = failed(Standing(), limited, 0.0, LIMITS)
    refused = refusal(standing, 3599)
    assert refused is not None
    assert refused.reason is Reason.URL_RATE_LIMITED
    assert refusal(standing, 3600) is None


@given(st.binary(max_size=64))
def test_what_is_sniffed_as_a_picture_starts_like_one(start: bytes) -> None:
    if is_picture(start):
        assert start[:2] in (b"\xff\xd8", b"\x89P", b"GI", b"BM", b"II", b"MM", b"\0\0", b"RI") or start[4:8] == b"ftyp"


def test_addresses_are_compared_as_numbers() -> None:
    assert ip_address("10.0.0.1") in NOT_PUBLIC_V4[1]
