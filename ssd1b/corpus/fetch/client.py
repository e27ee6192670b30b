"""One request at a time: connect only to public addresses and hosts that the recipe names, keep to the limits, and
name what goes wrong.

The name is resolved here and the connection goes to the very address that was checked, so that a name server that
answers differently the second time (DNS rebinding) gains nothing. Certificates and the Host header still go by name.
Proxies from the environment are not used: a proxy would resolve and connect on its own.
"""

import asyncio
import socket
import ssl
import zlib
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import httpcore
import httpx

from ssd1b.corpus.fetch.addresses import is_public, named
from ssd1b.corpus.fetch.failure import Failure
from ssd1b.corpus.reasons import Reason
from ssd1b.recipes.ingest import Fetch

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""From a host and port to its numeric addresses; OSError where there are none."""
WAITING = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""No errors: how a TLS object says that it needs more bytes."""
MOST_ADDRESSES = 3
"""Of one host that are tried."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """What the fetcher goes out by. Only tests give other than the defaults."""

    allow_private: bool = False
    """All private and loopback addresses may be connected to. No recipe sets this: recipes name hosts one by one."""
    resolve: Resolve | None = None
    """None asks the system."""
    tls: ssl.SSLContext | None = None
    """None trusts the usual authorities."""


class StoppedError(Exception):
    """A failure on its way up through the HTTP library."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


class PublicOnly(httpcore.AsyncNetworkBackend):
    """Opens connections to checked addresses, and to the pairs of host and port that the recipe names as `inside`."""

    def __init__(
        self,
        network: Network,
        inside: frozenset[tuple[str, int]],
        threads: ThreadPoolExecutor,
        setting: str = "fetch.private_hosts",
    ) -> None:
        """setting: what names the hosts inside, for whoever reads a refusal."""
        self.network, self.inside, self.threads, self.setting = network, inside, threads, setting
        self.inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self.addresses(host, port)
        anywhere = self.network.allow_private or (host.lower(), port) in self.inside
        for address in addresses:
            if not (anywhere or is_public(address)):
                detail = f"{host} is {address}, and {self.setting} does not name {host}:{port}"
                raise StoppedError(Failure(reason=Reason.URL_PRIVATE, detail=detail))
        *others, last = addresses[:MOST_ADDRESSES]
        for address in others:
            try:
                return await self.inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue  # the host's next address; the last one's error is the host's
        return await self.inner.connect_tcp(last, port, timeout, local_address, socket_options)

    async def addresses(self, host: str, port: int) -> list[str]:
        resolve = self.network.resolve or self.by_system
        try:
            found = await resolve(host, port)
        except TimeoutError:
            raise  # the request's own time is over
        except (OSError, UnicodeError) as error:
            busy = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
            raise StoppedError(Failure(reason=Reason.URL_DNS, detail=f"{host}: {error}", retry=busy)) from error
        if not found:
            raise StoppedError(Failure(reason=Reason.URL_DNS, detail=f"{host} has no address"))
        return found

    async def by_system(self, host: str, port: int) -> list[str]:
        def look_up() -> list[str]:
            return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]

        found = await asyncio.get_running_loop().run_in_executor(self.threads, look_up)
        return list(dict.fromkeys(found))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A response; its body is b"" unless it was asked for and wanted."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def values(self, name: str) -> list[str]:
        """Return the values of a header, in order."""
        return [value for key, value in self.headers if key == name]

    def value(self, name: str) -> str | None:
        return next(iter(self.values(name)), None)


Wanted = Callable[[Answer, bytes], Failure | None]
"""Asked with the head and what has come of the body so far (b"" at first): None to go on, a failure to stop."""


class Client:
    """Sends requests within the recipe's limits, as one user agent."""

    def __init__(self, config: Fetch, network: Network, agent: str) -> None:
        self.config = config
        self.agent = agent
        self.threads = ThreadPoolExecutor(config.concurrency, "resolve")
        self.pool = httpcore.AsyncConnectionPool(
            ssl_context=network.tls or httpcore.default_ssl_context(),
            max_connections=config.concurrency,
            keepalive_expiry=10.0,
            network_backend=PublicOnly(network, named(config.private_hosts), self.threads),
        )

    async def __aenter__(self) -> "Client":
        await self.pool.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.pool.__aexit__(kind, error, trace)
        self.threads.shutdown(wait=False, cancel_futures=True)

    async def get(self, url: httpx.URL, *, accept: str, most_bytes: int, wanted: Wanted) -> Answer | Failure:
        """Return the answer to one GET, with its body where the status is 200, or why there is none.

        A body of more than most_bytes ends as Failure(URL_TOO_LARGE).
        """
        try:
            async with asyncio.timeout(self.config.total_s):
                return await self.exchange(url, accept, most_bytes, wanted)
        except (TimeoutError, httpcore.TimeoutException) as error:
            return Failure(reason=Reason.URL_TIMEOUT, detail=type(error).__name__, retry=True)
        except StoppedError as stopped:
            return stopped.failure
        except httpcore.LocalProtocolError as error:
            return Failure(reason=Reason.URL_MALFORMED, detail=str(error))
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            if caused_by_tls(error):
                return Failure(reason=Reason.URL_TLS, detail=str(error))
            return Failure(reason=Reason.URL_UNREACHABLE, detail=f"{type(error).__name__}: {error}", retry=True)

    async def exchange(self, url: httpx.URL, accept: str, most_bytes: int, wanted: Wanted) -> Answer | Failure:
        request = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        headers: dict[bytes | str, bytes | str] = {
            "Host": url.netloc.decode("ascii"),
            "User-Agent": self.agent,
            "Accept": accept,
            "Accept-Encoding": "identity",
        }
        limits = {
            "connect": self.config.connect_s,
            "read": self.config.read_s,
            "write": self.config.read_s,
            "pool": self.config.total_s,
        }
        async with self.pool.stream("GET", request, headers=headers, extensions={"timeout": limits}) as response:
            told = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers)
            head = Answer(status=response.status, headers=told)
            if head.status != 200:
                return head
            if failure := wanted(head, b"") or announced(head, most_bytes):
                return failure
            body, inflate = bytearray(), decoder(head.value("content-encoding"))
            async for chunk in response.aiter_stream():
                body += inflate(chunk, most_bytes + 1 - len(body))
                if len(body) > most_bytes:
                    return Failure(reason=Reason.URL_TOO_LARGE, detail=f"over {most_bytes} bytes")
                if body and (failure := wanted(head, bytes(body[:64]))):
                    return failure
            return Answer(status=head.status, headers=told, body=bytes(body))


def announced(head: Answer, most_bytes: int) -> Failure | None:
    """Return the failure that a Content-Length foretells."""
    length = head.value("content-length") or ""
    if length.isascii() and length.isdigit() and int(length[:18]) > most_bytes:
        return Failure(reason=Reason.URL_TOO_LARGE, detail=f"{length} bytes announced, at most {most_bytes} are taken")
    return None


def decoder(encoding: str | None) -> Callable[[bytes, int], bytes]:
    """Return how to read a chunk of a body, never to more than so many bytes: a small gzip can hold a huge one.

    We ask for none, but some servers compress whatever they are asked.
    """
    if encoding is None or encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return lambda chunk, _: chunk
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def inflate(chunk: bytes, most: int) -> bytes:
        try:
            return stream.decompress(stream.unconsumed_tail + chunk, most)
        except zlib.error as error:
            raise StoppedError(Failure(reason=Reason.URL_UNREACHABLE, detail=f"body: {error}", retry=True)) from error

    return inflate


def caused_by_tls(error: BaseException) -> bool:
    """Say whether a connection failed over its certificate or protocol, rather than breaking off later."""
    cause: BaseException | None = error if isinstance(error, httpcore.ConnectError) else None
    while cause is not None and (not isinstance(cause, ssl.SSLError) or isinstance(cause, WAITING)):
        cause = cause.__cause__ or cause.__context__  # the pool raises `from None`, which leaves only the context
    return cause is not None
