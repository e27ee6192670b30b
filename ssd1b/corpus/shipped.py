"""The corpus that ships in the repository: drawings of things in six styles, one Parquet file.

Columns: key, concept (code points), label, group, subgroup, style, captions (list), split ("train" or "heldout", by
concept), width, height, licence, source, package, image (WebP bytes).
"""

import argparse
import io
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
from PIL import Image

from ssd1b.corpus.emoji import Drawing, read_drawings
from ssd1b.corpus.manifest import split_of, write_table

PATH = Path(__file__).parents[1] / "assets" / "corpus" / "emoji.parquet"
GROUPS = ("animals-nature", "food-drink", "travel-places", "activities", "objects")
LEFT_OUT = ("time", "sky-weather")
"""Subgroups of near-identical drawings: 24 clock faces, 13 moons."""
SIDE_PX = 128


def row(drawing: Drawing, quality: int = 90) -> dict[str, object]:
    picture = Image.open(io.BytesIO(drawing.png))
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=quality, method=6)
    concept, style = drawing.concept, drawing.style
    return {
        "key": drawing.key,
        "concept": concept.base,
        "label": concept.label,
        "group": concept.group,
        "subgroup": concept.subgroup,
        "style": style.style,
        "captions": drawing.captions,
        "split": split_of(concept.base),
        "width": picture.width,
        "height": picture.height,
        "licence": style.licence,
        "source": style.source,
        "package": f"{style.package}@{drawing.version}",
        "image": out.getvalue(),
    }


def write(drawings: Iterable[Drawing], path: Path = PATH) -> int:
    """Write the drawings of the shipped groups and return how many."""
    rows = [
        row(drawing)
        for drawing in drawings
        if drawing.concept.group in GROUPS and drawing.concept.subgroup not in LEFT_OUT
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pa.Table.from_pylist(rows), path, row_group_rows=512)
    return len(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the shipped corpus anew.")
    parser.add_argument("node_modules", type=Path, help="the folder that `make corpus` fills")
    parser.add_argument("--out", type=Path, default=PATH)
    options = parser.parse_args()
    drawn = write(read_drawings(options.node_modules, SIDE_PX), options.out)
    print(f"{drawn} drawings in {options.out}")
