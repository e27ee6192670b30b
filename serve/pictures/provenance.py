"""C2PA: a signed manifest in a picture's file that says a model made it, by the library of the standard's authors."""

import io
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

from serve.offer import Offer
from serve.request import OutputFormat

SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's name for what a trained model made."""
ALGORITHMS = ("es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519")
SETTINGS = {"builder": {"thumbnail": {"enabled": False}}, "verify": {"verify_after_sign": False}}
"""A thumbnail doubles a small file. What was signed here a moment ago need not be verified here."""

signing = Lock()


@dataclass(frozen=True, kw_only=True)
class Signing:
    """Who signs."""

    chain: Path
    """PEM file of the certificates, the signer's own first; readers trust it as far as they trust its last."""
    key: Path
    """PEM file of the signer's private key, PKCS #8."""
    algorithm: str = "es256"
    """The key's: es256 is ECDSA on P-256."""
    timestamps: str | None = None
    """URL of a timestamp authority, asked for each picture; without it a signature ends with its certificate."""


def signed(data: bytes, form: OutputFormat, offer: Offer, how: Signing) -> bytes:
    """Return the file with a manifest in it. Any later change of the file breaks the signature.

    The manifest carries a random id, and a time if an authority stamps it: files differ from one signing to the next,
    pixels do not.
    """
    import c2pa

    agent = {"name": f"ssd1b: {offer.model}", "version": offer.version}
    action = {"action": "c2pa.created", "digitalSourceType": SOURCE, "softwareAgent": agent}
    manifest = {
        "claim_generator_info": [{"name": "ssd1b", "version": version("ssd1b")}],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
    }
    out = io.BytesIO()
    signer, context = opened(how)
    with signing, c2pa.Builder(manifest, context=context) as builder:
        builder.sign(signer, f"image/{form}", io.BytesIO(data), out)
    return out.getvalue()


@lru_cache(maxsize=4)
def opened(how: Signing) -> tuple[Any, Any]:
    """Return the library's signer and settings, read once in a process.

    Raises:
        ValueError: a file that cannot be read, or a chain, key and algorithm that do not go together.
    """
    import c2pa

    if how.algorithm not in ALGORITHMS:
        raise ValueError(f"C2PA does not sign with {how.algorithm!r}: {', '.join(ALGORITHMS)}")
    try:
        chain, key = (path.read_bytes() for path in (Path(how.chain), Path(how.key)))
    except OSError as error:
        raise ValueError(f"C2PA: cannot read {error.filename}: {error.strerror}") from error
    authority = how.timestamps.encode() if how.timestamps else None
    try:
        signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(how.algorithm.encode(), chain, key, authority))
    except c2pa.C2paError as error:
        raise ValueError(f"C2PA cannot sign with {how.chain} and {how.key} as {how.algorithm}: {error}") from error
    return signer, c2pa.Context.from_dict(SETTINGS)
