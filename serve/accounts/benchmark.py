"""What accounts cost a request: `python -m serve.accounts.benchmark [URL]` times identify and charge, one by one.

Without a url it is SQLite in a temporary folder. The account and its entries stay in the database of a url.
"""

import asyncio
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable

from serve.accounts.accounts import Accounts, Caller
from serve.accounts.database import Database
from serve.accounts.office import Office, Terms
from serve.request import GenerationRequest
from ssd1b.command import show
from ssd1b.sizes import Size

REQUEST, SIZE = GenerationRequest(prompt="an apple", seed=1), Size(1024, 1024)


def main(url: str | None, times: int = 500) -> None:
    """Print the median and the 99th percentile of each, milliseconds, as one JSON line."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(url or f"sqlite:///{folder}/accounts.db")
        name, office = f"benchmark-{secrets.token_hex(4)}", Office()
        database.run(lambda connection: office.add(connection, name, 10**9, Terms(images_per_minute=10**6)))
        key = database.run(lambda connection: office.key(connection, name, 1.0))["key"]
        accounts = Accounts(database)
        try:
            figures = asyncio.run(timed(accounts, key, times))
        finally:
            accounts.close()
    show(json.dumps({"database": str(database) if url else "sqlite", "times": times, **figures}))


async def timed(accounts: Accounts, key: str, times: int) -> dict[str, float]:
    caller = await accounts.identify(key)

    async def charge() -> None:
        async with accounts.charge(caller, secrets.token_hex(8), REQUEST, SIZE):
            pass

    figures: dict[str, float] = {}
    for name, call in (("identify", lambda: accounts.identify(key)), ("charge", charge)):
        spent = sorted([await milliseconds(call) for _ in range(times)])
        figures |= {f"{name}_median_ms": spent[times // 2], f"{name}_p99_ms": spent[times * 99 // 100]}
    return figures


async def milliseconds(call: Callable[[], Awaitable[Caller | None]]) -> float:
    started = time.perf_counter()
    await call()
    return round((time.perf_counter() - started) * 1000, 2)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
