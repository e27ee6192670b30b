"""The emoji source: one concept drawn by several vendors, each in a style of its own.

The drawings are npm packages with permissive licences; labels, tags and groups are CLDR's as emojibase publishes
them, joined by code point. Everything is read from a `node_modules` folder that `make corpus` fills.
"""

import io
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ssd1b.corpus.captions import captions
from ssd1b.corpus.drawings import package_folder, read_set, render, version_of
from ssd1b.corpus.pair import Pair
from ssd1b.corpus.pictures import on_white
from ssd1b.corpus.reasons import Reason, Reject


@dataclass(frozen=True, kw_only=True)
class EmojiSet:
    """One vendor's drawings."""

    package: str
    """npm package."""
    style: str
    """The words that name the style in captions."""
    licence: str
    """SPDX identifier of the drawings."""
    source: str
    """Where the drawings come from."""


FLUENT = "github.com/microsoft/fluentui-emoji"
NOTO = "github.com/googlefonts/noto-emoji"
SHIPPED_SETS = (
    EmojiSet(package="@lobehub/fluent-emoji-3d", style="3d render", licence="MIT", source=FLUENT),
    EmojiSet(package="@iconify-json/fluent-emoji-flat", style="flat vector", licence="MIT", source=FLUENT),
    EmojiSet(package="@iconify-json/fluent-emoji-high-contrast", style="black line", licence="MIT", source=FLUENT),
    EmojiSet(package="@iconify-json/noto", style="soft cartoon", licence="Apache-2.0", source=NOTO),
    EmojiSet(package="@iconify-json/noto-v1", style="retro blob", licence="Apache-2.0", source=NOTO),
    EmojiSet(
        package="@iconify-json/fxemoji",
        style="muted poster",
        licence="Apache-2.0",
        source="github.com/mozilla/fxemoji",
    ),
)
SETS = (
    *SHIPPED_SETS,
    EmojiSet(package="@iconify-json/fluent-emoji", style="glossy gradient", licence="MIT", source=FLUENT),
)
"""The glossy set nearly repeats the 3d renders as vectors, so that it is in the whole corpus but does not ship."""


@dataclass(frozen=True, kw_only=True)
class Concept:
    """What an emoji means, whoever drew it."""

    code: str
    """Code points in hexadecimal, joined by '-', without the variation selector."""
    base: str
    """The code without its skin tones: what the split between train and held-out goes by."""
    label: str
    tags: tuple[str, ...]
    group: str
    """CLDR's group, for example "animals-nature"."""
    subgroup: str
    """CLDR's subgroup, for example "animal-bird"."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One concept in one style: PNG bytes of an RGB picture on white."""

    concept: Concept
    style: EmojiSet
    version: str
    png: bytes

    @property
    def key(self) -> str:
        return f"{self.style.package.rpartition('/')[2]}/{self.concept.code}"

    @property
    def captions(self) -> list[str]:
        return captions(self.concept.label, list(self.concept.tags), self.style.style)

    @property
    def pair(self) -> Pair:
        concept = self.concept
        return Pair(
            source=self.style.source,
            key=self.key,
            captions=tuple(self.captions),
            image=self.png,
            style=self.style.style,
            concept=concept.base,
            group=concept.group,
            subgroup=concept.subgroup,
            licence=self.style.licence,
        )


def read_concepts(node_modules: Path) -> dict[str, Concept]:
    """Return every emoji by code point, skin tones and flags included; no lone components such as a skin tone alone."""
    folder = package_folder(node_modules, "emojibase-data")
    data = json.loads((folder / "en/data.json").read_text())
    meta = json.loads((folder / "meta/groups.json").read_text())
    found = {}
    for entry in data:
        group = meta["groups"].get(str(entry.get("group")), "")
        if group in ("", "component"):
            continue
        base = normal_code(entry["hexcode"])
        for drawn in (entry, *entry.get("skins", ())):
            code = normal_code(drawn["hexcode"])
            found[code] = Concept(
                code=code,
                base=base,
                label=spoken(drawn["label"]),
                tags=tuple(entry.get("tags", ())),
                group=group,
                subgroup=meta["subgroups"][str(entry["subgroup"])],
            )
    return found


def spoken(label: str) -> str:
    """Return CLDR's label as one would say it: "flag: Japan" is a flag of Japan, "man: beard" a man, beard."""
    return label.replace("“", "").replace("”", "").replace("flag: ", "flag of ").replace(": ", ", ")


def normal_code(text: str) -> str:
    return text.lower().replace("-fe0f", "")


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower())


def codes_by_label(concepts: dict[str, Concept]) -> dict[str, str]:
    """Return code points by the letters of the label; sets without a character table write "artist-dark" for a tone."""
    codes: dict[str, str] = {}
    for code, concept in concepts.items():
        codes.setdefault(slug(concept.label), code)
        # "man, dark skin tone, bald" splits into man | dark | , bald and is looked for as man, bald, dark
        parts = re.split(r", ([a-z-]+) skin tone", concept.label)
        codes.setdefault(slug(parts[0] + "".join(reversed(parts[1:]))), code)
    return codes


def read_drawings(node_modules: Path, side: int, sets: tuple[EmojiSet, ...] = SHIPPED_SETS) -> Iterator[Drawing]:
    """Yield every drawing of a known concept, rasterised to `side` x `side` pixels, set by set."""
    for emoji_set in sets:
        yield from (found for found in read_emoji(node_modules, emoji_set, side) if isinstance(found, Drawing))


def read_emoji(node_modules: Path, emoji_set: EmojiSet, side: int) -> Iterator[Drawing | Reject]:
    """Yield every drawing of a set, or why it is left out; names join by the set's character table, else by label."""
    concepts = read_concepts(node_modules)
    by_label = codes_by_label(concepts)
    folder = package_folder(node_modules, emoji_set.package)
    version = version_of(node_modules, emoji_set.package)
    icons = read_set(node_modules, emoji_set.package) if (folder / "icons.json").exists() else None
    codes = webp_codes(folder) if icons is None else icon_codes(folder, icons)
    seen: set[str] = set()
    for name, listed in codes.items():
        code = listed if listed in concepts else by_label.get(slug(name), "")
        if not code or code in seen:
            reason = Reason.CONCEPT_DRAWN_TWICE if code else Reason.CONCEPT_UNKNOWN
            yield Reject(reason=reason, source=emoji_set.package, key=name)
            continue
        seen.add(code)
        try:
            png = shrink(folder / f"assets/{name}.webp", side) if icons is None else render(icons, name, side)
        except (ValueError, OSError) as error:
            yield Reject(reason=Reason.IMAGE_CORRUPT, source=emoji_set.package, key=name, detail=str(error))
            continue
        yield Drawing(concept=concepts[code], style=emoji_set, version=version, png=png)


def webp_codes(folder: Path) -> dict[str, str]:
    """Return code points by file name, of a package of pictures that are named by them."""
    return {path.stem: normal_code(path.stem) for path in sorted((folder / "assets").glob("*.webp"))}


def icon_codes(folder: Path, icons: dict[str, Any]) -> dict[str, str]:
    """Return code points by icon name, "" where the set's character table has none."""
    table = folder / "chars.json"
    chars = json.loads(table.read_text()) if table.exists() else {}
    codes = {name: normal_code(code) for code, name in chars.items()}
    return {name: codes.get(name, "") for name in icons["icons"]}


def shrink(path: Path, side: int) -> bytes:
    """Return a drawing on white as PNG bytes, `side` x `side` pixels."""
    out = io.BytesIO()
    on_white(Image.open(path).convert("RGBA").resize((side, side), Image.Resampling.LANCZOS)).save(out, "PNG")
    return out.getvalue()
