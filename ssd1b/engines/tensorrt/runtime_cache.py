"""What TensorRT-RTX compiled on this GPU, kept for the next process: without it the first steps take tens of seconds.

Compiled kernels are programs as plans are, so the file is signed and read under the same rules (see signing.py). A
machine whose key is not trusted keeps none.
"""

import logging
from pathlib import Path
from typing import Any
from uuid import uuid4

from ssd1b.engines.tensorrt.plans import UntrustedError, may_build, read
from ssd1b.engines.tensorrt.signing import is_signed, private_key, trusted_keys

log = logging.getLogger(__name__)

SIGNATURE_BYTES = 64
MOST_BYTES = 2**30


class RuntimeCache:
    """The cache of one plan on one GPU. It is only ever a loss of time: what is wrong with it is logged, and it is new.

    Never ran on a GPU.
    """

    def __init__(self, config: Any, path: Path) -> None:
        self.path = path
        self.cache = config.create_runtime_cache()
        if path.exists():
            try:
                self.cache.deserialize(verified(path))
            except UntrustedError as reason:
                log.warning("compiled kernels are not used: %s", reason)
        config.set_runtime_cache(self.cache)

    def keep(self) -> None:
        """Write what is compiled by now. Of several processes the last one's stays."""
        try:
            may_build()
        except ValueError as reason:
            log.info("compiled kernels are not kept: %s", reason)
            return
        write_signed(self.path, bytes(self.cache.serialize()))


def write_signed(path: Path, content: bytes) -> None:
    """Write content behind its signature, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{uuid4().hex}.new")
    aside.write_bytes(private_key().sign(content) + content)
    aside.replace(path)


def verified(path: Path) -> bytes:
    """Return the content of a file that `write_signed` wrote.

    Raises:
        UntrustedError: no trusted key has signed it.
    """
    whole = read(path.parent, path.name, MOST_BYTES)
    signature, content = whole[:SIGNATURE_BYTES], whole[SIGNATURE_BYTES:]
    if not is_signed(content, signature, trusted_keys()):
        raise UntrustedError(f"{path} is not signed by a trusted key: remove it, and it is made again")
    return content
