"""Text for a sheet whose font does not have every script: what it lacks is told in words instead of boxes.

DejaVu Sans has Latin, Greek, Cyrillic, Arabic, Hebrew and many symbols, but not Chinese, Japanese, Korean or most of
the scripts of India; a font that has them is larger than this library.
"""

import unicodedata
from collections.abc import Set as AbstractSet
from functools import cache

from matplotlib.ft2font import FT2Font

from ssd1b.corpus.charts import font

SCRIPTS = {"CJK": "Han", "IDEOGRAPHIC": "Han", "FULLWIDTH": "wide Latin", "HALFWIDTH": "Katakana"}
"""First words of Unicode names that are not the script's own name. Halfwidth letters are nearly always Katakana."""
SYMBOLS = "symbols"
UNSEEN = ("Cf", "Mn")
"""General categories of joiners, marks and selectors of variants."""
LETTERS = ("L", "M", "N")
"""General categories of what is written in a script: letters, marks and numbers."""


def legible(text: str) -> str:
    """Return the text with each run of characters that the font lacks told like "(6 characters of Han)".

    Text that the font has is returned as it is.
    """
    drawn = glyphs()
    if all(ord(letter) in drawn or letter.isspace() for letter in text):
        return text
    found: list[str] = []
    run: list[str] = []
    for letter in text:
        lacking = ord(letter) not in drawn
        if lacking and not letter.isspace():
            run.append(letter)
        elif run and letter.isspace():
            run.append(" ")  # between two lacking characters a space is part of the run
        elif run and unicodedata.category(letter) in UNSEEN:
            continue  # it shapes the character before it, which will not be seen
        else:
            found += [*told(run), letter]
            run = []
    return " ".join("".join([*found, *told(run)]).split())


def told(run: list[str]) -> list[str]:
    """Return what stands for a run of lacking characters, which may end in spaces; spaced from what is around it."""
    letters = [letter for letter in run if letter != " "]
    if not letters:
        return []
    names = list(dict.fromkeys(map(script, letters)))
    if names == [SYMBOLS]:
        return [f" ({len(letters)} {'symbol' if len(letters) == 1 else 'symbols'}) "]
    which = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return [f" ({len(letters)} {'character' if len(letters) == 1 else 'characters'} of {which}) "]


def script(letter: str) -> str:
    """Return the name of a letter's script; of all else, emoji among it, SYMBOLS."""
    name = unicodedata.name(letter, "").partition(" ")[0].partition("-")[0]
    if name in ("", "VARIATION") or unicodedata.category(letter)[0] not in LETTERS:
        return SYMBOLS
    return SCRIPTS.get(name, name.title())


@cache
def glyphs() -> AbstractSet[int]:
    """Return the code points that the sheet's font has."""
    return frozenset(FT2Font(font(12).path).get_charmap())
