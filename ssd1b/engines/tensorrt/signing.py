"""Signatures of plans: a plan is a program, and deserialising one runs it.

The builder signs a plan's manifest, which holds the plan's sha256, with an Ed25519 key (RFC 8032); a server hands a
plan to the library only if a key that it trusts has signed it. By default both keys lie under the storage root, which
guards against files that got there by accident or from elsewhere, not against somebody who can write to all of it: for
that keep the builders' $SSD1B_PLAN_KEY and the servers' $SSD1B_PLAN_TRUST outside of it.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ssd1b.home import home

KEY, TRUST = "SSD1B_PLAN_KEY", "SSD1B_PLAN_TRUST"
BYTES = 32
"""Of a key, raw, private as public."""


def key_path() -> Path:
    """Return where the private key lies: $SSD1B_PLAN_KEY, or keys/plans under the storage root."""
    return Path(os.environ.get(KEY) or home() / "keys" / "plans")


def trust_path() -> Path:
    """Return the file, or the folder of `.pub` files, of the public keys that are trusted.

    $SSD1B_PLAN_TRUST, or what lies beside the private key.
    """
    return Path(os.environ.get(TRUST) or key_path().with_suffix(".pub"))


def private_key() -> Ed25519PrivateKey:
    """Return the builder's key, made on the first use, for its owner's eyes alone.

    Raises:
        ValueError: others can read it, or the file holds no key.
    """
    path = key_path()
    if not path.exists():
        make_key(path)
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ValueError(f"others can read the private key {path}: make a new one (remove it and its .pub), or "
                         f"`chmod 600 {path}` if nobody has")  # fmt: skip
    raw = path.read_bytes()
    if len(raw) != BYTES:
        raise ValueError(f"{path} holds {len(raw)} bytes, not the {BYTES} of an Ed25519 key: remove it, and a new one "
                         f"is made")  # fmt: skip
    return Ed25519PrivateKey.from_private_bytes(raw)


def make_key(path: Path) -> None:
    """Write a new pair of keys. Of processes that do so at the same time one wins; the file is never half written."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = Ed25519PrivateKey.generate()
    aside = path.with_name(f"{path.name}.{uuid4().hex}.new")
    descriptor = os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes_raw())
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(aside, path)
    except FileExistsError:
        key = Ed25519PrivateKey.from_private_bytes(path.read_bytes())
    finally:
        aside.unlink()
    public = path.with_suffix(".pub")
    beside = public.with_name(f"{public.name}.{uuid4().hex}.new")
    beside.write_bytes(key.public_key().public_bytes_raw())
    beside.replace(public)


def trusted_keys() -> tuple[Ed25519PublicKey, ...]:
    """Return the public keys that are trusted.

    Raises:
        ValueError: there are none, or a file holds no key.
    """
    path = trust_path()
    files = sorted(path.glob("*.pub")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise ValueError(f"no trusted key at {path}: copy the builder's .pub there, or name another place in {TRUST}")
    raws = {file: file.read_bytes() for file in files}
    if wrong := [str(file) for file, raw in raws.items() if len(raw) != BYTES]:
        raise ValueError(f"not the {BYTES} bytes of an Ed25519 public key: {', '.join(wrong)}")
    return tuple(Ed25519PublicKey.from_public_bytes(raw) for raw in raws.values())


def is_signed(content: bytes, signature: bytes, keys: Sequence[Ed25519PublicKey]) -> bool:
    """Say whether one of the keys has signed the content."""
    for key in keys:
        try:
            key.verify(signature, content)
        except InvalidSignature:
            continue
        return True
    return False
