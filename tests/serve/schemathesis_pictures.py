"""What schemathesis cannot make up: pictures that hold one, and keys that nobody sent before.

SCHEMATHESIS_HOOKS=schemathesis_pictures loads it.
"""

import base64
import io
import uuid
from typing import Any

import schemathesis
from hypothesis import strategies as st
from PIL import Image
from schemathesis.transport.serialization import Binary

from serve.front.once import FORM, HEADER


def dot() -> bytes:
    """One transparent pixel: a picture, and a mask of it."""
    buffer = io.BytesIO()
    Image.new("RGBA", (1, 1), (200, 30, 30, 0)).save(buffer, format="png")
    return buffer.getvalue()


schemathesis.openapi.format("picture", st.just(base64.b64encode(dot()).decode()))
schemathesis.openapi.format("binary", st.just(Binary(dot())))


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:  # noqa: ARG001
    """Send a good key once only: it sends the simplest one with body after body, which is what is to be refused."""
    if FORM.fullmatch((case.headers or {}).get(HEADER, "")):
        case.headers[HEADER] = str(uuid.uuid4())
