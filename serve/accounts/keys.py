"""API keys: how they look, what is kept of them, how one is recognised. Pure.

A key is `sk-<prefix>-<secret>`. The prefix is public: it finds the key's row and names the key in lists. Of the
secret only a salted hash is kept. A fast hash is enough, because a secret is 32 random characters (190 bits), which
nobody finds by trying; slow hashes are for passwords that people choose.
"""

import hashlib
import hmac
import secrets
import string
from dataclasses import dataclass

ALPHABET = string.ascii_letters + string.digits
PREFIX, SECRET = 10, 32
"""Characters of a key's two parts."""


@dataclass(frozen=True)
class KeptKey:
    """What the database keeps of a key."""

    prefix: str
    salt: bytes
    digest: bytes

    def opens_with(self, key: str) -> bool:
        """Whether this is the key, in a time that does not tell how much of it is right."""
        return hmac.compare_digest(self.digest, digest(key, self.salt))


NOBODY = KeptKey("", bytes(16), bytes(32))
"""Compared with when no row has the prefix, so that an unknown prefix takes as long as a wrong secret."""


def new_key() -> tuple[str, KeptKey]:
    """Return a key, to be shown once, and what is kept of it."""
    prefix, secret = ("".join(secrets.choice(ALPHABET) for _ in range(count)) for count in (PREFIX, SECRET))
    key, salt = f"sk-{prefix}-{secret}", secrets.token_bytes(16)
    return key, KeptKey(prefix, salt, digest(key, salt))


def prefix_of(key: str) -> str | None:
    """Return the public part of a key, or None if the text has not the form of one."""
    start, _, rest = key.partition("-")
    prefix, dash, secret = rest.partition("-")
    formed = start == "sk" and dash and len(prefix) == PREFIX and len(secret) == SECRET
    return prefix if formed and set(prefix + secret) <= set(ALPHABET) else None


def digest(key: str, salt: bytes) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=32, salt=salt, person=b"ssd1b api key").digest()
