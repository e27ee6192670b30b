"""The Midjourney scrape: Discord messages with the links of their pictures.

    **a fox in the snow, oil --ar 16:9 --v 5** - Upscaled by <@123> (fast)

Files called `ori` hold the first answers, sheets of four candidates; `upscaled` ones hold single pictures. Where the
file's name tells neither, the message does: "Upscaled by" and "Image #3" are single pictures, all else is a sheet, the
safe mistake. Discord's links have expired since the end of 2023: pictures come from a mirror, and a dead link is an
expected outcome, counted like any other.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ssd1b.corpus.layouts import LAYOUTS
from ssd1b.corpus.pair import Pair
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.corpus.tables import read_row_group
from ssd1b.sizes import Size

TRAILER = re.compile(
    r"\s+-\s+(?:(?:Upscaled|Variations|Remix|Zoom|Pan|Image|Upscale|Panned|Zoomed)\b[^@\n]{0,80})?"
    r"(?:by\s+)?<?@[^\n]*\Z",
    re.IGNORECASE,
)
"""What Midjourney writes behind a prompt: who asked, how it was made, how fast."""
LINK = re.compile(r"<?https?://[^\s>]+>?", re.IGNORECASE)
FLAGS = (
    "ar|aspect|c|chaos|cref|cw|exp|fast|hd|iw|niji|no|p|profile|q|quality|relax|repeat|s|seed|sref|stop|style|stylize|"
    "sw|tile|turbo|uplight|upbeta|v|version|video|w|weird"
)
DASH = rf"(?:--(?=[a-zA-Z])|[—–](?=(?:{FLAGS})\b))"
"""Two hyphens, or the dash that a phone makes of them: before the name of a flag only, since it is punctuation too."""
UNWANTED = re.compile(rf"(?:^|\s){DASH}no\b.*?(?=\s{DASH}|\Z)", re.IGNORECASE | re.DOTALL)
"""`--no` takes all words up to the next flag."""
FLAG = re.compile(rf"(?:^|\s){DASH}([a-zA-Z]+)((?:\s+(?!{DASH})[^\s,]+)?)", re.IGNORECASE)
"""A flag and the word behind it, which is its value unless the flag takes none."""
BARE = frozenset({"tile", "hd", "fast", "relax", "turbo", "test", "testp", "creative", "video", "uplight", "upbeta"})
"""Flags without a value: the word behind them is of the prompt."""
SINGLE = re.compile(r"\s-\s+(?:Upscaled|Image\s+#\d)", re.IGNORECASE)
GRIDS = 4


def clean_prompt(message: str) -> str:
    """Return the words of a prompt: no flags, links, bold marks, weights or who asked for it."""
    text = TRAILER.sub("", message)
    text = LINK.sub(" ", text).replace("**", " ")
    text = UNWANTED.sub("", text)
    text = FLAG.sub(lambda match: match[2] if match[1].lower() in BARE else "", text)
    text = re.sub(r"::\s*-?\d*\.?\d*", " ", text)
    text = re.sub(r"<@!?\d+>", " ", text)
    text = re.sub(r"\s+([,.;])", r"\1", " ".join(text.split()))
    return text.strip(" ,;")


def kind_of(name: str, message: str) -> Literal["single", "sheet"]:
    """Say what a row's picture is, by the file's name or else by the message."""
    file = Path(name).name.lower()
    if re.search(r"(^|[^a-z])upscale", file):
        return "single"
    if re.search(r"(^|[^a-z])ori(g|ginal)?s?([^a-z]|$)", file):
        return "sheet"
    return "single" if SINGLE.search(message) else "sheet"


def read_messages(
    path: Path, row_group: int, name: str, first: int, rows: int | None, *, grids: Literal["leave", "split"]
) -> Iterator[Pair | Reject]:
    """Yield a row group's pairs: single pictures as they are, sheets as a Reject or as four pairs KEY/0 to KEY/3."""
    for found in read_row_group(path, row_group, name, LAYOUTS["midjourney"], first, rows):
        if isinstance(found, Reject):
            yield found
            continue
        messages = found.captions
        pair = replace(found, captions=tuple(clean_prompt(message) for message in messages))
        if kind_of(name, messages[0] if messages else "") == "single":
            yield pair
        elif grids == "leave":
            yield Reject(reason=Reason.GRID_OF_FOUR, source=pair.source, key=pair.key)
        else:
            yield from quarters_of(pair)


def quarters_of(sheet: Pair) -> Iterator[Pair]:
    """Yield the four pairs of a sheet, which declare half its height and width."""
    whole = sheet.declared_size
    half = None if whole is None else Size(max(1, whole.height // 2), max(1, whole.width // 2))
    for number in range(GRIDS):
        yield replace(sheet, key=f"{sheet.key}/{number}", quadrant=number, declared_size=half)
