"""Telling a caller's own address of its prediction: to public addresses only, signed, and again if it does not listen.

Signed by the Standard Webhooks scheme, as Replicate's are: HMAC-SHA256 of "id.timestamp.body" under the account's own
secret. The address is connected to by ssd1b.corpus.fetch's guard, which checks the very address it connects to;
redirects are not followed.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import ssl
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpcore

from ssd1b.corpus.fetch.addresses import named, parse
from ssd1b.corpus.fetch.client import Network, PublicOnly, StoppedError
from ssd1b.corpus.fetch.failure import Failure
from ssd1b.recipes.ingest import PRIVATE_HOST

logger = logging.getLogger("ray.serve")

TIMEOUT_S = 10.0
DELAYS_S = (1.0, 4.0, 16.0, 32.0)
"""Between the attempts of the last message, about a minute in all; the others are sent once."""
CONNECTIONS = 16
UNHEARD = (StoppedError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, TimeoutError)
"""What a connection that may not be, or does not come about, ends with."""


class Webhooks:
    """One for a front."""

    def __init__(self, secret: bytes, private_hosts: Sequence[str] = ()) -> None:
        """private_hosts: HOST or HOST:PORT inside the cluster's own network that may be told nevertheless.

        Raises:
            ValueError: one is written otherwise.
        """
        for host in private_hosts:
            if not PRIVATE_HOST.fullmatch(host):
                raise ValueError(f"webhook host {host!r}: give HOST or HOST:PORT, no scheme, no path")
        self._secret = secret
        self._threads = ThreadPoolExecutor(CONNECTIONS, "webhooks")
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=CONNECTIONS,
            network_backend=PublicOnly(Network(), named(private_hosts), self._threads, "the setting webhook_hosts"),
        )

    def secret_of(self, account: str) -> str:
        """Return an account's signing secret, in the scheme's notation."""
        key = hmac.digest(self._secret, account.encode(), "sha256")
        return f"whsec_{base64.b64encode(key).decode()}"

    async def tell(self, url: str, account: str, message_id: str, body: bytes, last: bool) -> bool:
        """Send a message; return whether it was taken. The last one of a prediction is sent again if it was not."""
        for delay_s in (*(DELAYS_S if last else ()), None):
            if await self._send(url, account, message_id, body):
                return True
            if delay_s is not None:
                await asyncio.sleep(delay_s)
        return False

    async def _send(self, url: str, account: str, message_id: str, body: bytes) -> bool:
        goal = parse(url)
        if isinstance(goal, Failure):
            logger.warning("webhook %s: %s", message_id, goal.detail)
            return False
        headers = {
            "host": goal.netloc.decode("ascii"),
            "content-type": "application/json",
            "content-length": str(len(body)),
            "user-agent": "ssd1b-webhooks/1",
            **signature(self.secret_of(account), message_id, int(time.time()), body),
        }
        address = httpcore.URL(scheme=goal.raw_scheme, host=goal.raw_host, port=goal.port, target=goal.raw_path)
        limits = dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_S)
        told = [(key.encode(), value.encode()) for key, value in headers.items()]
        try:
            async with asyncio.timeout(2 * TIMEOUT_S):
                async with self._pool.stream(
                    "POST", address, headers=told, content=body, extensions={"timeout": limits}
                ) as answer:
                    status = answer.status
        except UNHEARD as error:
            logger.warning("webhook %s: %s: %s", message_id, type(error).__name__, error)
            return False
        if not 200 <= status < 300:
            logger.warning("webhook %s: answered with status %d", message_id, status)
        return 200 <= status < 300

    async def close(self) -> None:
        await self._pool.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)


def signature(secret: str, message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """Return the three headers of the Standard Webhooks scheme."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b".".join((message_id.encode(), str(timestamp_s).encode(), body))
    value = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp_s), "webhook-signature": f"v1,{value}"}
