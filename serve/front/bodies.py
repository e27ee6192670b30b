"""Reading what a client sends, no more of it and no longer than a request needs."""

import asyncio
from collections.abc import Sequence

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from serve.dialects.body import PICTURE_BYTES, PICTURE_CHARACTERS
from serve.dialects.openai_edits import MASK_BYTES
from serve.errors import RequestError
from serve.front.gone import CLIENT_CLOSED_REQUEST

JSON_BYTES = 2**20
PICTURE_JSON_BYTES = JSON_BYTES + 2 * PICTURE_CHARACTERS
"""A body with a picture and a mask in base64."""
FORM_BYTES = JSON_BYTES + PICTURE_BYTES + MASK_BYTES
FORM_FIELDS, FORM_FILES = 100, 17
BODY_S = 120.0
"""How long a client may take to send its body."""


def limited(receive: Receive, most_bytes: int) -> Receive:
    """Return a receive that refuses a body once it is longer, or once the client has taken too long over it."""
    read = 0
    deadline = asyncio.get_running_loop().time() + BODY_S

    async def bounded() -> Message:
        nonlocal read
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError as error:
            raise RequestError(
                f"The body did not arrive within {BODY_S:g} s: send it faster", None, "request_timeout", 408
            ) from error
        read += len(message.get("body", b""))
        if read > most_bytes:
            raise too_large(most_bytes)
        return message

    return bounded


def too_large(most_bytes: int) -> RequestError:
    return RequestError(f"The body is larger than {most_bytes} bytes", None, "request_too_large", 413)


def bounded(http: Request, most_bytes: int) -> Request:
    """Return the request with its body limited; what it announces is believed at once.

    Raises:
        RequestError: 413, the announced length is too great.
    """
    announced = http.headers.get("content-length", "")
    if announced.isdecimal() and len(announced) < 20 and int(announced) > most_bytes:
        raise too_large(most_bytes)
    return Request(http.scope, limited(http.receive, most_bytes))


async def body_of(http: Request, most_bytes: int = JSON_BYTES) -> bytes:
    """Return the whole body.

    Raises:
        RequestError: 413 too long, 408 too slow, 499 the client has gone.
    """
    try:
        return await bounded(http, most_bytes).body()
    except ClientDisconnect as error:
        raise gone() from error


Form = tuple[list[tuple[str, str]], dict[str, list[bytes]]]
"""Text fields in order, and files by name."""


async def form_of(http: Request, most_bytes: int = FORM_BYTES) -> Form:
    """Return the fields and files of a multipart form.

    Raises:
        RequestError: as `body_of`, or no form.
    """
    if not http.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise RequestError(
            "The body must be a form: send it as multipart/form-data", None, "unsupported_media_type", 415
        )
    try:
        form = await bounded(http, most_bytes).form(
            max_files=FORM_FILES, max_fields=FORM_FIELDS, max_part_size=JSON_BYTES
        )
    except ClientDisconnect as error:
        raise gone() from error
    except (HTTPException, MultiPartException, ValueError, KeyError) as error:
        raise RequestError(
            f"The form cannot be read: {getattr(error, 'detail', error)}", None, "invalid_form"
        ) from error
    try:
        fields, files = list[tuple[str, str]](), dict[str, list[bytes]]()
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                files.setdefault(name, []).append(await picture_bytes(name, value))
            else:
                fields.append((name, value))
        return fields, files
    finally:
        await form.close()


async def picture_bytes(name: str, file: UploadFile) -> bytes:
    if file.size is not None and file.size > PICTURE_BYTES:
        raise RequestError(f"{name} is larger than {PICTURE_BYTES} bytes", name, "request_too_large", 413)
    return await file.read()


def gone() -> RequestError:
    return RequestError("The client has gone", None, "client_gone", CLIENT_CLOSED_REQUEST)


def only(items: Sequence[bytes], name: str) -> bytes:
    """Return the one file of a name."""
    if len(items) != 1:
        raise RequestError(f"{len(items)} files are named '{name}': send one", name, "missing_required_parameter")
    return items[0]
