"""One HTTP request from the first byte to the last: its id, its headers, its line in the log, its count.

A plain ASGI middleware, since Starlette's convenient kind keeps a handler from hearing that its client hung up.
"""

import json
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.accounts import Caller, Charge
from serve.errors import RequestError
from serve.front.gone import CLIENT_CLOSED_REQUEST
from serve.front.meters import Meters
from serve.front.once import Key
from ssd1b.sizes import Size

logger = logging.getLogger("ray.serve")

FRONT = secrets.token_hex(4)
"""Names this process: every request id begins with it, so that one sees which front answered."""
CALLERS_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
"""What a caller's own x-request-id may look like to be repeated in the log."""


@dataclass
class Visit:
    """What is known of a request; the middleware makes it, the desk and the dialects fill it in."""

    dialect: str
    id: str = field(default_factory=lambda: f"req_{FRONT}{secrets.token_hex(12)}")
    started: float = field(default_factory=time.monotonic)
    caller: Caller | None = None
    charge: Charge | None = None
    size: Size | None = None
    """What is drawn, once the desk has chosen it."""
    pictures: int = 0
    replica: str = ""
    error: str | None = None
    """Code of the refusal."""
    key: Key | None = None
    """What the caller will know the request by if it sends it again."""
    quiet: bool = False
    """One of many that nobody looks for: in the log only if it goes wrong, or in detail."""

    @property
    def account(self) -> str:
        """Whose request it is; known once the desk has welcomed it."""
        assert self.caller is not None, "welcome comes first"
        return self.caller.name

    @property
    def spare_seed(self) -> int | None:
        """Seed of a body without one; None leaves it to chance."""
        return self.key.seed if self.key else None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


def visit_of(http: Request) -> Visit:
    visit: Visit = http.state.visit
    return visit


Refuse = Callable[[Visit, RequestError], Response]
"""Puts a refusal into the shape of the request's dialect."""


class Visits:
    """The outermost layer: it also turns what nobody foresaw into a 500 that tells nothing but the request's id.

    HEAD is answered as GET is, without the body.
    """

    def __init__(self, app: ASGIApp, dialect_of: Callable[[str], str], refuse: Refuse, meters: Meters) -> None:
        self.app, self.dialect_of, self.refuse, self.meters = app, dialect_of, refuse, meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visit = Visit(self.dialect_of(scope["path"]))
        scope.setdefault("state", {})["visit"] = visit
        status = CLIENT_CLOSED_REQUEST
        method = scope["method"]

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = visit.id
                headers["openai-processing-ms"] = str(round(visit.seconds * 1000))
                headers["x-content-type-options"] = "nosniff"
            if method != "HEAD":
                await send(message)
            elif message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})

        try:
            await self.app({**scope, "method": "GET"} if method == "HEAD" else scope, receive, stamped)
        except Exception:
            logger.exception("%s failed", visit.id)
            visit.error = "server_error"
            if status != CLIENT_CLOSED_REQUEST:
                raise  # the head of the answer is out already: the server breaks the connection off
            message = f"The server failed on this request; its log names {visit.id}"
            error = RequestError(message, None, "server_error", 500, "server_error")
            await self.refuse(visit, error)(scope, receive, stamped)
        finally:
            told = {"method": method, "path": scope["path"], "caller_id": callers_id(scope)}
            tell(visit, status, self.meters, **told)


def tell(visit: Visit, status: int, meters: Meters, **more: object) -> None:
    """Write a visit's line into the log, and count it."""
    meters.count(visit.dialect, status, visit.seconds, visit.pictures)
    line = {
        "id": visit.id,
        "dialect": visit.dialect,
        "account": visit.caller.name if visit.caller else None,
        "status": status,
        "error": visit.error,
        "seconds": round(visit.seconds, 3),
        "pictures": visit.pictures,
        "replica": visit.replica or None,
        **more,
    }
    level = logging.DEBUG if visit.quiet and status < 400 else logging.INFO
    logger.log(level, "%s", json.dumps({key: value for key, value in line.items() if value is not None}))


def callers_id(scope: Scope) -> str | None:
    given = Request(scope).headers.get("x-request-id", "")
    return given if CALLERS_ID.fullmatch(given) else None
