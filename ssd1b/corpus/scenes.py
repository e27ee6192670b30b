"""Drawings on white, and the same before backdrops: more pairs out of one, with captions that say so."""

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from PIL import Image

from ssd1b.corpus.backdrops import BACKDROPS, lay
from ssd1b.corpus.pair import Pair
from ssd1b.corpus.reasons import Reject
from ssd1b.recipes.ingest import Ingest


def with_scenes(found: Iterable[Pair | Reject], config: Ingest) -> Iterator[Pair | Reject]:
    """Yield what was found, and each wanted drawing again before `config.scenes` backdrops.

    Which backdrops follows from the pair's key alone; pairs of (style, backdrop) that are held out are passed over.
    """
    for pair in found:
        yield pair
        if isinstance(pair, Reject) or not wanted(pair, config):
            continue
        drawing = np.asarray(Image.open(io.BytesIO(pair.read())).convert("RGB"))
        for name in backdrops_of(pair, config):
            out = io.BytesIO()
            Image.fromarray(lay(drawing, BACKDROPS[name])).save(out, "PNG")
            yield replace(
                pair,
                key=f"{pair.key}/{name}",
                captions=tuple(f"{caption}, {BACKDROPS[name].phrase}" for caption in pair.captions),
                image=out.getvalue(),
            )


def wanted(pair: Pair, config: Ingest) -> bool:
    """Return whether a recipe takes a drawing at all: one that it leaves out is not laid before anything."""
    return all(
        not chosen or value in chosen
        for chosen, value in (
            (config.styles, pair.style), (config.splits, pair.split), (config.subgroups, pair.subgroup)
        )
    )  # fmt: skip


def backdrops_of(pair: Pair, config: Ingest) -> list[str]:
    """Return the names of a drawing's backdrops, in an order that has nothing to do with what it shows."""
    allowed = [name for name in config.backdrops if (pair.style, name) not in config.held_out]
    return sorted(allowed, key=lambda name: hashlib.sha256(f"{pair.key}/{name}".encode()).digest())[: config.scenes]
