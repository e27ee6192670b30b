"""Where in a request its key stands, by dialect."""

import base64
import binascii

from starlette.requests import Request

from serve.errors import RequestError


def key_of(http: Request) -> str | None:
    """Return the key in a request, wherever its dialect puts it.

    Bearer (OpenAI, Replicate, Hugging Face), Token (older clients of Replicate), x-api-key (Segmind), Basic (A1111's
    --api-auth: any name, the key as its password).

    Raises:
        RequestError: an Authorization header that is none of these.
    """
    if key := http.headers.get("x-api-key", "").strip():
        return key
    kind, _, value = http.headers.get("authorization", "").strip().partition(" ")
    if not kind:
        return None
    if kind.lower() in ("bearer", "token"):
        return value.strip() or None
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2] or None
        except (binascii.Error, ValueError) as error:
            raise unauthorised("The Authorization header is not base64 of NAME:KEY") from error
    raise unauthorised(f"Authorization of kind '{kind[:20]}' is not known: send `Authorization: Bearer KEY`")


def unauthorised(message: str) -> RequestError:
    return RequestError(message, None, "invalid_api_key", 401)
