"""The folder of plans: one folder a plan, named by its key, that appears whole and signed or not at all.

In it lie:

    <key>/plan           what the library deserialises
    <key>/manifest.json  the plan's sha256 and bytes, what the key is made of, how long the build took
    <key>/signature      of manifest.json, by a builder's key
"""

import hashlib
import json
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from ssd1b.engines.tensorrt.options import Job
from ssd1b.engines.tensorrt.signing import is_signed, private_key, trusted_keys

PLAN, MANIFEST, SIGNATURE = "plan", "manifest.json", "signature"
MANIFEST_BYTES = 2**20
"""More is no manifest: an unsigned file is not read into memory without bound."""


@dataclass(frozen=True)
class Plan:
    """A plan whose manifest a trusted key has signed. The plan itself is not read yet: see `bytes_of`."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def size_bytes(self) -> int:
        return int(self.manifest["bytes"])


class UntrustedError(ValueError):
    """A plan that is there and must not be used."""


def publish(folder: Path, job: Job, plan: bytes, seconds: float) -> Plan:
    """Sign a plan and move it into place. If another builder was first, its plan stays and ours is thrown away; what a
    trusted builder has not put there gives way to ours.

    Raises:
        ValueError: what this machine signs is not trusted here, so that it would be built again for ever.
    """
    key = private_key()
    manifest = {
        "key": job.key,
        "graph": job.name,
        "sha256": hashlib.sha256(plan).hexdigest(),
        "bytes": len(plan),
        "seconds": round(seconds, 1),
        "parts": dict(job.parts),
    }
    text = json.dumps(manifest, indent=1, sort_keys=True).encode()
    aside = folder / f".{job.key}.{uuid4().hex}.new"
    aside.mkdir(parents=True)
    for name, content in {PLAN: plan, MANIFEST: text, SIGNATURE: key.sign(text)}.items():
        with (aside / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    for _ in range(2):
        try:
            aside.rename(folder / job.key)
            break
        except OSError:  # a folder that is not empty lies there
            if not (folder / job.key).is_dir():
                raise
        try:
            find(folder, job.key)
            shutil.rmtree(aside)
            break
        except UntrustedError:
            put_aside(folder, job.key)
    return find(folder, job.key)


def may_build() -> None:
    """Refuse to build what would not be trusted afterwards.

    Raises:
        ValueError: this machine's key is not among those that are trusted here.
    """
    ours = private_key().public_key().public_bytes_raw()
    if ours not in [key.public_bytes_raw() for key in trusted_keys()]:
        raise ValueError("this machine's key is not among those it trusts, so it may not build plans: add its .pub to "
                         "the trusted keys, or let a builder make them")  # fmt: skip


def find(folder: Path, key: str) -> Plan:
    """Return a plan by its key, its signature checked, its bytes not yet.

    Raises:
        FileNotFoundError: there is none.
        UntrustedError: what is there is not what a trusted builder put there.
    """
    place = folder / key
    if place.is_symlink():
        raise UntrustedError(f"{place} is a link: plans lie in the folder themselves")
    if not place.is_dir():
        raise FileNotFoundError(place)
    text, signature = read(place, MANIFEST, MANIFEST_BYTES), read(place, SIGNATURE, MANIFEST_BYTES)
    if not is_signed(text, signature, trusted_keys()):
        raise UntrustedError(f"{place / MANIFEST} is not signed by a trusted key: {AGAIN}")
    manifest: dict[str, Any] = json.loads(text)
    if manifest["key"] != key:
        raise UntrustedError(f"{place} holds the plan {manifest['key']}: {AGAIN}")
    return Plan(place, manifest)


AGAIN = "remove the folder, and the plan is built again"


def bytes_of(plan: Plan) -> bytes:
    """Return the plan, ready to be deserialised: these very bytes hash to what was signed.

    Raises:
        UntrustedError: they do not.
    """
    content = read(plan.folder, PLAN, plan.size_bytes)
    if len(content) != plan.size_bytes or hashlib.sha256(content).hexdigest() != plan.manifest["sha256"]:
        raise UntrustedError(f"{plan.folder / PLAN} is not the plan that was signed: {AGAIN}")
    return content


def read(folder: Path, name: str, most_bytes: int) -> bytes:
    """Return a plain file's content, and one byte more than wanted of a longer one. Links are refused, never followed.

    Raises:
        UntrustedError: it is missing, a link, or not a plain file.
    """
    path = folder / name
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        why = "missing" if isinstance(error, FileNotFoundError) else "a link, or cannot be read"
        raise UntrustedError(f"{path} is {why}: {AGAIN}") from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UntrustedError(f"{path} is not a plain file: {AGAIN}")
        return file.read(most_bytes + 1)


def put_aside(folder: Path, key: str) -> None:
    """Move what must not be used out of the way; it stays for whoever wants to look at it."""
    (folder / key).rename(folder / f".{key}.{uuid4().hex}.refused")
