"""Idempotency-Key: a request that is sent again draws the same pictures and is paid once.

A client without an answer cannot know whether it has paid: the answer may be lost with the front that had it, or on the
way. With this header (IETF draft httpapi-idempotency-key-header, Stripe's rules) it may ask again, through any front.
The store keeps the id that the first request under a key is charged by (serve/front/predictions.py), and the ledger
charges an id once; so whoever asks again is drawn for again and charged nothing. A body without a seed gets the key's.
"""

import hashlib
import re
from dataclasses import dataclass, replace

from starlette.requests import Request

from serve.errors import RequestError
from serve.request import GenerationRequest

HEADER = "Idempotency-Key"
DAY_S = 86_400.0
"""How long a key is remembered."""
MOST_USES = 100
"""Requests with one key: one charge must not draw for a whole day."""
FORM = re.compile(r"[!-~]{1,255}")
SCHEMA = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}


@dataclass(frozen=True)
class Key:
    """A key belongs to the account and the route it was sent to: others may have the same text."""

    account: str
    path: str
    text: str

    @property
    def seed(self) -> int:
        """Seed of a body that names none, 0 to 2**32 - 1."""
        return int.from_bytes(hashlib.blake2b(f"{self.account}\n{self.text}".encode(), digest_size=4).digest())


def once_of(http: Request, account: str) -> Key | None:
    """Return the key that a request was sent with, None without one. The draft's quotes around it mean nothing.

    Raises:
        RequestError: 400, it is empty, too long, or has other than visible ASCII characters.
    """
    given = http.headers.get(HEADER)
    if given is None:
        return None
    text = given[1:-1] if len(given) > 1 and given[0] == given[-1] == '"' else given
    if not FORM.fullmatch(text):
        raise RequestError(
            f"{HEADER} {given[:40]!r} is none: send 1 to 255 visible ASCII characters, for example a UUID",
            HEADER,
            "invalid_idempotency_key",
        )
    return Key(account, http.url.path, text)


def digest_of(request: GenerationRequest) -> str:
    """Return what is equal only for requests that draw the same."""
    start = request.start
    picture = (start.strength, sha(start.picture), sha(start.mask or b"")) if start else None
    told = repr((replace(request, start=None, id=""), picture)).encode()
    return hashlib.blake2b(told, digest_size=16).hexdigest()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def reused(text: str) -> RequestError:
    return RequestError(
        f"{HEADER} {text!r} was sent with another request before: send a new key with a new request",
        HEADER,
        "idempotency_key_reused",
        422,
    )


def worn(text: str) -> RequestError:
    return RequestError(
        f"{HEADER} {text!r} was sent {MOST_USES} times: send a new key", HEADER, "idempotency_key_worn", 422
    )
