"""Styles: named presets that go around a prompt, so that a caller asks for "origami" and need not know the words.

`styles.json` beside this file holds the ten of SSD-1B's announcement, and the six drawing styles of the shipped corpus
in the words of its captions, which the embedded nano model was trained on; the ten say little to that model. A file of
the same form adds styles of one's own, or replaces these:

    {"woodcut": {"prompt": "woodcut of {prompt}, bold grain", "negative_prompt": "photograph"}}
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from serve.errors import not_offered
from serve.request import GenerationRequest

VARIABLE = "SSD1B_STYLES"
"""Names a file of one's own styles."""
MARK = "{prompt}"
MEMBERS = ("prompt", "negative_prompt")
SHIPPED = Path(__file__).with_name("styles.json")


@dataclass(frozen=True)
class Style:
    """One preset."""

    name: str
    prompt: str
    """Has `{prompt}` once, where the caller's words go."""
    negative_prompt: str = ""
    """Follows the caller's own."""

    def around(self, prompt: str) -> str:
        """Return the caller's words in this style, as they are drawn."""
        return self.prompt.replace(MARK, prompt)


Styles = Mapping[str, Style]
"""By `key_of` their names, in the order in which a page shows them."""


def key_of(name: str) -> str:
    """Return what names are compared by: "Craft-Clay", "craft_clay" and "craft clay" are one style."""
    return " ".join(name.casefold().replace("-", " ").replace("_", " ").split())


def open_styles(path: str | Path | None = None) -> dict[str, Style]:
    """Return the shipped styles with those of a file: `path`, else the one that $SSD1B_STYLES names, else none.

    Raises:
        ValueError: the file cannot be read, or an entry of it is no style; the message names both.
    """
    own = path or os.environ.get(VARIABLE)
    return read(SHIPPED) | (read(Path(own)) if own else {})


def read(path: Path) -> dict[str, Style]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except (OSError, ValueError) as error:
        raise ValueError(f"styles cannot be read from {path}: {error}") from error
    if not isinstance(entries, dict):
        raise ValueError(f'{path}: write one object, {{"name": {{"prompt": "... {MARK} ..."}}}}')
    styles: dict[str, Style] = {}
    for name, entry in entries.items():
        try:
            style = style_of(name, entry)
            if key_of(name) in styles:
                raise ValueError(f"is {styles[key_of(name)].name!r} again")
        except ValueError as error:
            raise ValueError(f"{path}: style {name!r} {error}") from error
        styles[key_of(name)] = style
    return styles


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that has a name twice, of which JSON readers keep the last without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def style_of(name: str, entry: object) -> Style:
    if not key_of(name):
        raise ValueError("has an empty name")
    if not isinstance(entry, dict):
        raise ValueError(f'must be an object, {{"prompt": "... {MARK} ..."}}')
    if unknown := sorted(set(entry) - set(MEMBERS)):
        raise ValueError(f"has {unknown[0]!r}; known: {', '.join(MEMBERS)}")
    prompt, negative = entry.get("prompt", ""), entry.get("negative_prompt", "")
    if not (isinstance(prompt, str) and isinstance(negative, str)):
        raise ValueError("has a prompt that is not text")
    if prompt.count(MARK) != 1:
        raise ValueError(f"must say {MARK} once in its prompt, where the caller's words go; it says {prompt!r}")
    return Style(name, prompt, negative)


def dressed(request: GenerationRequest, styles: Styles) -> GenerationRequest:
    """Return the request with its style's words around the prompt; one without a style as it is.

    Call it once: the style stays named in the request, for the picture's metadata. The replica counts the tokens of
    what comes out, so that a prompt that has become too long is refused rather than cut.

    Raises:
        RequestError: there is no such style.
    """
    if request.style is None:
        return request
    style = styles.get(key_of(request.style))
    if style is None:
        raise not_offered("style", request.style, [one.name for one in styles.values()])
    negative = ", ".join(text for text in (request.negative_prompt, style.negative_prompt) if text)
    return replace(request, prompt=style.around(request.prompt), negative_prompt=negative, style=style.name)
