"""Which URLs and addresses a fetcher may go to: http and https, on the public internet and hosts that a recipe names.

A corpus is a list of URLs that strangers wrote. One of them may name the cluster's own metadata service, so that every
address is checked, of first URLs and of redirects alike, after the name was resolved; see client.py for why the
checked address is also the one that is connected to.
"""

import re
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network

import httpx

from ssd1b.corpus.fetch.failure import Failure
from ssd1b.corpus.reasons import Reason
from ssd1b.recipes.ingest import PRIVATE_HOST

HOST = re.compile(rb"[A-Za-z0-9_-][A-Za-z0-9._-]*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
"""A name as it goes over the wire, or an IPv6 address without its brackets."""
USUAL_PORTS = (80, 443)
"""Of http and https."""
LONGEST_URL = 8192
"""Characters; RFC 9110 4.1 asks for at least 8000."""
NOT_PUBLIC_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
"""IANA's special-purpose registry (RFC 6890), with multicast and what is reserved for the future."""
PUBLIC_V6 = IPv6Network("2000::/3")
NOT_PUBLIC_V6 = tuple(IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
"""Of the global unicast space: protocol assignments with Teredo, documentation, and 6to4, which hides IPv4."""
NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are an IPv4 address. What a network without IPv4 resolves the rest of the world to."""


def is_public(address: str) -> bool:
    """Say whether a numeric address belongs to the public internet. What is no numeric address does not."""
    try:
        v4 = IPv4Address(address)
        return not any(v4 in network for network in NOT_PUBLIC_V4)
    except AddressValueError:
        pass  # not IPv4: the next lines say whether it is IPv6
    try:
        v6 = IPv6Address(address)
    except AddressValueError:
        return False
    if v6 in NAT64:
        return is_public(str(IPv4Address(int(v6) & 0xFFFFFFFF)))
    return v6.scope_id is None and v6 in PUBLIC_V6 and not any(v6 in network for network in NOT_PUBLIC_V6)


def named(hosts: Iterable[str]) -> frozenset[tuple[str, int]]:
    """Return a recipe's private hosts as pairs of host and port; a host without a port has the usual ones.

    Hosts are as a connection asks for them: in lower case, IPv6 addresses without brackets.
    """
    found: set[tuple[str, int]] = set()
    for text in hosts:
        match = PRIVATE_HOST.fullmatch(text)
        assert match is not None, f"{text!r} was checked by the recipe"
        ports = USUAL_PORTS if match["port"] is None else (int(match["port"]),)
        found.update((match["host"].strip("[]").lower(), port) for port in ports)
    return frozenset(found)


def parse(text: str) -> httpx.URL | Failure:
    """Return a URL ready to be asked for: http or https, a host, no fragment, no name and password."""

    def malformed(why: str) -> Failure:
        return Failure(reason=Reason.URL_MALFORMED, detail=f"{why}: {text[:200]!r}")

    if len(text) > LONGEST_URL:
        return malformed(f"longer than {LONGEST_URL} characters")
    try:
        url = httpx.URL(text.strip())
        host = url.host  # decodes an internationalised name, which may fail
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        return malformed(str(error))
    if url.scheme not in ("http", "https"):
        return malformed("neither http nor https")
    if not host or not HOST.fullmatch(url.raw_host):
        return malformed("no host")
    if url.port is not None and not 0 < url.port < 65536:
        return malformed(f"port {url.port}")
    return url.copy_with(fragment=None, username=None, password=None)


def follow(url: httpx.URL, location: str) -> httpx.URL | Failure:
    """Return where a redirect leads, which keeps the rules of a first URL."""
    try:
        target = str(url.join(location))
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        return Failure(reason=Reason.REDIRECT_REFUSED, detail=f"{error}: {location[:200]!r}")
    found = parse(target)
    return Failure(reason=Reason.REDIRECT_REFUSED, detail=found.detail) if isinstance(found, Failure) else found


def origin(url: httpx.URL) -> str:
    """Return scheme, host and port: what has one robots.txt."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def target(url: httpx.URL) -> str:
    """Return path and query as they go over the wire."""
    return url.raw_path.decode("ascii")
