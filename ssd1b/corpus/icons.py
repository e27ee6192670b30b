"""The icon source: thousands of one-colour symbols, drawn in exact colours on exact grounds, so that a caption's
attributes can be checked: "a blue line icon of a brain on a navy background".

Names are the captions' nouns; suffixes of the names are styles. Brand logos are left out where a set marks them.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ssd1b.corpus.captions import article
from ssd1b.corpus.colours import GROUNDS, INKS, PAIRS
from ssd1b.corpus.drawings import package_folder, read_set, render
from ssd1b.corpus.emoji import codes_by_label, read_concepts, slug
from ssd1b.corpus.pair import Pair
from ssd1b.corpus.reasons import Reason, Reject


@dataclass(frozen=True, kw_only=True)
class IconSet:
    """One package of icons."""

    package: str
    """npm package."""
    licence: str
    """SPDX identifier of the drawings."""
    style: str
    """The style of names without a suffix."""
    suffixes: tuple[tuple[str, str], ...] = ()
    """(suffix of the name, style), the longest first."""


SETS = (
    IconSet(
        package="@iconify-json/ph",
        licence="MIT",
        style="line",
        suffixes=(
            ("-duotone", "duotone"),
            ("-light", "light line"),
            ("-thin", "thin line"),
            ("-bold", "bold line"),
            ("-fill", "solid"),
        ),
    ),
    IconSet(package="@iconify-json/tabler", licence="MIT", style="line", suffixes=(("-filled", "solid"),)),
    IconSet(package="@iconify-json/lucide", licence="ISC", style="line"),
    IconSet(
        package="@iconify-json/material-symbols",
        licence="Apache-2.0",
        style="solid",
        suffixes=(
            ("-outline-rounded", "rounded line"),
            ("-outline-sharp", "sharp line"),
            ("-outline", "line"),
            ("-rounded", "rounded solid"),
            ("-sharp", "sharp solid"),
        ),
    ),
    IconSet(package="@iconify-json/mdi", licence="Apache-2.0", style="solid", suffixes=(("-outline", "line"),)),
    IconSet(package="@iconify-json/hugeicons", licence="MIT", style="line"),
    IconSet(package="@iconify-json/iconoir", licence="MIT", style="line", suffixes=(("-solid", "solid"),)),
    IconSet(
        package="@iconify-json/carbon",
        licence="Apache-2.0",
        style="line",
        suffixes=(("--filled", "solid"), ("-filled", "solid"), ("-solid", "solid")),
    ),
)
BRANDS = {"logo", "brand"}


def style_of(name: str, icon_set: IconSet) -> tuple[str, str]:
    """Return (name without its style suffix, style)."""
    for suffix, style in icon_set.suffixes:
        if name.endswith(suffix) and len(name) > len(suffix):
            return name.removesuffix(suffix), style
    return name, icon_set.style


def noun_of(name: str) -> str:
    """Return an icon's name as words: "home-01" is a home, "align-box--left" an align box left."""
    words = [word for word in re.split(r"[-_]+", name) if word]
    return " ".join(words[:-1] if len(words) > 1 and re.fullmatch(r"0\d", words[-1]) else words)


def icon_captions(noun: str, style: str, ink: str, ground: str) -> tuple[str, ...]:
    """Return three captions that name what the icon shows, its style and both colours."""
    return (
        f"{article(f'{ink} {style}')} icon of {article(noun)} on {article(ground)} background",
        f"{noun}, {style} icon, {ink} on {ground}",
        f"{article(noun)} drawn as {article(f'{ink} {style}')} icon, {ground} background",
    )


def brands(folder: Path) -> set[str]:
    """Return the names that the set's own categories call brands or logos."""
    metadata = folder / "metadata.json"
    categories = json.loads(metadata.read_text()).get("categories", {}) if metadata.exists() else {}
    return {name for title, names in categories.items() if BRANDS & set(slug_words(title)) for name in names}


def slug_words(title: str) -> list[str]:
    return re.split(r"[^a-z]+", title.lower())


def colour_pairs(key: str, variants: int) -> list[tuple[str, str]]:
    """Return so many different (ink, ground) for an icon: a stable choice by its key."""
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    # 7 and the number of pairs have no common divisor, so that no pair comes twice
    assert len(PAIRS) % 7, "the stride must not divide the number of pairs"
    return [PAIRS[(start + 7 * i) % len(PAIRS)] for i in range(min(variants, len(PAIRS)))]


def read_icons(node_modules: Path, icon_set: IconSet, side: int, variants: int) -> Iterator[Pair | Reject]:
    """Yield every icon of a set in `variants` pairs of colours, or why it is left out.

    An icon that is called as an emoji is shares its concept, so that no held-out concept is trained as an icon.
    """
    icons = read_set(node_modules, icon_set.package)
    branded = brands(package_folder(node_modules, icon_set.package))
    concepts = read_concepts(node_modules)
    emoji = codes_by_label(concepts)
    for name, icon in icons["icons"].items():
        bare, style = style_of(name, icon_set)
        reason = None
        if name in branded or BRANDS & set(name.split("-")):
            reason = Reason.BRAND_LOGO
        elif icon.get("hidden"):
            reason = Reason.ICON_WITHDRAWN
        if reason is not None:
            yield Reject(reason=reason, source=icon_set.package, key=name, rows=variants)
            continue
        noun = noun_of(bare)
        code = emoji.get(slug(noun))
        for ink, ground in colour_pairs(f"{icon_set.package}/{name}", variants):
            key = f"{name}/{ink}-{ground}"
            try:
                png = render(icons, name, side, colour=INKS[ink], background=GROUNDS[ground])
            except ValueError as error:
                yield Reject(reason=Reason.IMAGE_CORRUPT, source=icon_set.package, key=key, detail=str(error))
                continue
            yield Pair(
                source=icon_set.package,
                key=key,
                captions=icon_captions(noun, style, ink, ground),
                image=png,
                style=f"{style} icon",
                concept=concepts[code].base if code else noun,
                group="icons",
                licence=icon_set.licence,
            )
