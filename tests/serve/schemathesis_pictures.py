"""What schemathesis cannot make up: pictures that hold one. SCHEMATHESIS_HOOKS=schemathesis_pictures loads it."""

import base64
import io

import schemathesis
from hypothesis import strategies as st
from PIL import Image
from schemathesis.transport.serialization import Binary


def dot() -> bytes:
    """One transparent pixel: a picture, and a mask of it."""
    buffer = io.BytesIO()
    Image.new("RGBA", (1, 1), (200, 30, 30, 0)).save(buffer, format="png")
    return buffer.getvalue()


schemathesis.openapi.format("picture", st.just(base64.b64encode(dot()).decode()))
schemathesis.openapi.format("binary", st.just(Binary(dot())))
