"""What both models are asked to draw, and what is known of every prompt: its object, its style, what is new about it.

Taken from the corpus by its own columns, so that another corpus with other styles, held-out combinations or attributes
needs no other code; or from a file of captions.
"""

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from ssd1b.corpus import shipped
from ssd1b.corpus.backdrops import BACKDROPS
from ssd1b.corpus.captions import captions
from ssd1b.recipes.evaluate import Evaluate

Novelty = Literal["trained", "held-out object", "held-out combination", "held-out caption"]
"""What a model has not seen of a prompt. A combination is an object in a style, both trained, never together."""
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One prompt at one seed."""

    prompt: str
    seed: int
    novelty: Novelty
    style: str = ""
    category: str = ""
    """The corpus's subgroup."""
    concept: str = ""
    drawing: bytes | None = None
    """The corpus's own picture of it, encoded; None where nobody drew it."""
    probe: str = ""
    """Name of the words that were put behind it."""
    plain: int | None = None
    """Of a probe: which ask it is without those words."""


def asks_of(config: Evaluate) -> list[Ask]:
    """Return what to draw, the same on every machine: held-out prompts first, then trained ones, then probes.

    Raises:
        ValueError: the corpus or the file has fewer prompts than asked for.
    """
    main = from_captions(config) if config.captions else from_corpus(config)
    seeded = [replace(ask, seed=config.seed + (0 if config.one_seed else i)) for i, ask in enumerate(main)]
    trained = [i for i, ask in enumerate(seeded) if ask.novelty == "trained"][: config.probe_prompts]
    probes = [
        replace(seeded[i], prompt=seeded[i].prompt + probe.clause, probe=probe.name, plain=i, drawing=None)
        for probe in config.probes
        for i in trained
    ]
    return [*seeded, *probes]


def from_captions(config: Evaluate) -> list[Ask]:
    """Return the prompts of a file, in its order."""
    with Path(config.captions).open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, delimiter="\t")
        if "caption" not in (reader.fieldnames or ()):
            raise ValueError(
                f"{config.captions} has no column caption, only {reader.fieldnames}: give it a header line"
            )
        prompts = [row["caption"].strip() for row in reader]
    if len(prompts) < config.captions_used:
        raise ValueError(
            f"{config.captions} has {len(prompts)} captions, not {config.captions_used}: set captions_used to that"
        )
    return [Ask(prompt=prompt, seed=0, novelty="held-out caption") for prompt in prompts[: config.captions_used]]


def from_corpus(config: Evaluate) -> list[Ask]:
    rows = corpus(config)
    held_out = [(row, "held-out object") for row in first(config.prompts, held_out_objects(rows), "held-out objects")]
    combined = first(config.combinations, held_out_combinations(rows), "held-out combinations")
    trained = first(config.prompts, [row for row in rows if row["split"] == "train"], "trained objects")
    seen, unseen = (
        first(config.scenes, scenes(rows, config, held), f"{what} scenes")
        for held, what in ((False, "trained"), (True, "held-out"))
    )
    chosen: list[tuple[Row, Any]] = [
        *held_out,
        *((row, "held-out combination") for row in unseen),
        *((row, "held-out combination") for row in combined),
        *((row, "trained") for row in (*trained, *seen)),
    ]
    return [
        Ask(
            prompt=row["captions"][0], seed=0, novelty=novelty, style=row["style"], category=row["subgroup"],
            concept=row["concept"], drawing=row["image"],
        )
        for row, novelty in chosen
    ]  # fmt: skip


def corpus(config: Evaluate) -> list[Row]:
    """Return the rows of the corpus in the styles and subgroups that a recipe names."""
    return [
        row
        for row in pq.read_table(shipped.PATH).to_pylist()
        if row["style"] in config.styles and (not config.subgroups or row["subgroup"] in config.subgroups)
    ]


def held_out_objects(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of concepts of which no row is trained."""
    trained = {row["concept"] for row in rows if row["split"] == "train"}
    return [row for row in rows if row["concept"] not in trained]


def held_out_combinations(rows: Sequence[Row]) -> list[Row]:
    """Return a row for every trained concept and trained style that were never trained together.

    Where nobody drew that, the row has no image.
    """
    trained = [row for row in rows if row["split"] == "train"]
    known = {(row["concept"], row["style"]) for row in trained}
    drawn = {(row["concept"], row["style"]): row for row in rows}
    concepts = {row["concept"]: row for row in trained}
    styles = sorted({row["style"] for row in trained})
    return [
        drawn.get((concept, style))
        or {**row, "key": f"{concept}/{style}", "style": style, "captions": captions(row["label"], [], style),
            "split": "combination", "image": None}
        for concept, row in concepts.items()
        for style in styles
        if (concept, style) not in known
    ]  # fmt: skip


def scenes(rows: Sequence[Row], config: Evaluate, held_out: bool) -> list[Row]:
    """Return trained drawings before backdrops: pairs of style and backdrop that were trained, or that were held out.

    Nobody drew those, so that they have no image.
    """
    return [
        {**row, "key": f"{row['key']}/{name}", "image": None,
         "captions": [f"{caption}, {BACKDROPS[name].phrase}" for caption in row["captions"]]}
        for row in rows
        if row["split"] == "train"
        for name in config.backdrops
        if ((row["style"], name) in config.held_out) == held_out
    ]  # fmt: skip


def first(count: int, rows: Sequence[Row], what: str) -> list[Row]:
    """Return that many rows, in an order that has nothing to do with what they show."""
    if len(rows) < count:
        raise ValueError(f"the corpus has {len(rows)} prompts of {what} in these styles and subgroups, not {count}")
    return sorted(rows, key=lambda row: hashlib.sha256(row["key"].encode()).digest())[:count]


def digest(asks: Iterable[Ask]) -> str:
    """Return the SHA-256 of prompts and seeds in their order, hexadecimal."""
    total = hashlib.sha256()
    for ask in asks:
        total.update(f"{ask.seed}\t{ask.prompt}\n".encode())
    return total.hexdigest()


def picture_of(image: bytes) -> Tensor:
    """Return an encoded picture as uint8 (height, width, 3)."""
    return torch.from_numpy(np.array(Image.open(io.BytesIO(image)).convert("RGB")))
