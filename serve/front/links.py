"""Between what is kept here and the URLs and pictures by which callers know it."""

import re
from typing import Any

import httpx

from serve.dialects.body import data_uri, picture_of
from serve.dialects.pictures import opened, require_shape, whole
from serve.dialects.replicate import Input
from serve.errors import RequestError
from serve.front.predictions import DONE, Predictions, State
from serve.request import Start

FILE_URL = re.compile(r"/v1/files/(?P<id>[0-9a-f]{40})(/download)?")
"""The path of a file that is kept here."""


def file_url(base: str, id: str) -> str:
    return f"{base}/v1/files/{id}/download"


def present(state: State, store: Predictions, base: str) -> dict[str, Any]:
    """Return a prediction as callers see it. Reads files: call it on a thread.

    Replicate's client makes files of https and data URLs only, so that pictures are data: URIs unless this endpoint is
    reached by https; then they are URLs, which it serves for an hour.
    """
    told = {key: value for key, value in state.items() if key != "run"}
    here = f"{base}/v1/predictions/{state['id']}"
    told["urls"] = {"get": here, "cancel": f"{here}/cancel", "stream": f"{here}/stream"}
    told["data_removed"] = False
    if state["output"] is not None:
        kept = (id if base.startswith("https:") else store.file(id) for id in state["output"])
        told["output"] = [
            file_url(base, one) if isinstance(one, str) else data_uri(one.data, one.type)
            for one in kept
            if one is not None
        ]
    return told


def start_of(told: Input, store: Predictions, account: str) -> Start | None:
    """Return the picture that an input starts from. Takes a moment: call it on a thread.

    Raises:
        RequestError: no picture, a URL of elsewhere, a mask of another size.
    """
    if told.image is None:
        return None
    data = bytes_of(told.image, "input.image", store, account)
    picture = whole(data, "input.image")
    mask = bytes_of(told.mask, "input.mask", store, account) if told.mask is not None else None
    if mask is not None:
        require_shape(opened(mask, "input.mask"), picture)
    return Start(picture=data, strength=told.prompt_strength, mask=mask)


def bytes_of(text: str, param: str, store: Predictions, account: str) -> bytes:
    """Return the picture in a data: URI, or in a file that the account sent here; no other URL is looked at."""
    if text.startswith(("http://", "https://")):
        try:
            match = FILE_URL.fullmatch(httpx.URL(text).path)
        except (httpx.InvalidURL, ValueError):
            match = None
        file = store.file(match["id"], account) if match else None
        if file is None:
            raise RequestError(
                f"{param}: URLs are not fetched, but for files that you sent to /v1/files here in the last hour; "
                "send the picture as a data: URI",
                param,
                "invalid_value",
            )
        return file.data
    return picture_of(text, param)


def is_done(state: State) -> bool:
    return state["status"] in DONE
