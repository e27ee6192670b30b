"""Drawings that come again before backdrops: as many as asked for, with captions that say so, none held out."""

import dataclasses
import io

import numpy as np
from PIL import Image

from ssd1b.corpus.backdrops import BACKDROPS
from ssd1b.corpus.pair import Pair
from ssd1b.corpus.reasons import Reject
from ssd1b.corpus.scenes import backdrops_of
from ssd1b.corpus.sources import read, shards
from ssd1b.recipes.ingest import nano, nano_scenes

CONFIG = nano_scenes()


def some() -> list[Pair]:
    found = [pair for shard in shards(CONFIG)[:1] for pair in read(shard, CONFIG)]
    return [pair for pair in found if not isinstance(pair, Reject)]


def test_wanted_drawings_come_three_times_and_others_once() -> None:
    pairs = some()
    plain = [pair for pair in pairs if "/" not in pair.key.partition("/")[2]]
    shard = shards(nano())[0]
    assert [pair.key for pair in plain] == [pair.key for pair in read(shard, nano()) if isinstance(pair, Pair)]
    wanted = {pair.key for pair in plain if pair.subgroup in CONFIG.subgroups}
    scenes = [pair for pair in pairs if pair not in plain]
    assert wanted
    assert len(scenes) == CONFIG.scenes * len(wanted)
    assert {pair.key.rpartition("/")[0] for pair in scenes} == wanted
    assert len({pair.key for pair in pairs}) == len(pairs)


def test_a_scene_says_what_lies_behind_and_keeps_labels_and_split() -> None:
    pairs = {pair.key: pair for pair in some()}
    for key, pair in pairs.items():
        drawing, _, name = key.rpartition("/")
        if drawing not in pairs:
            continue
        assert (pair.style, name) not in CONFIG.held_out
        assert pair.captions == tuple(f"{text}, {BACKDROPS[name].phrase}" for text in pairs[drawing].captions)
        assert (pair.split, pair.style, pair.concept) == tuple(
            getattr(pairs[drawing], field) for field in ("split", "style", "concept")
        )
        picture = np.asarray(Image.open(io.BytesIO(pair.read())))
        assert (picture[0, 0] == BACKDROPS[name].paint(128)[0, 0]).all() or picture[0, 0].min() < 250


def test_which_backdrops_follows_from_the_key_and_all_are_used() -> None:
    pairs = some()
    assert [backdrops_of(pair, CONFIG) for pair in pairs] == [backdrops_of(pair, CONFIG) for pair in pairs]
    used = {name for pair in pairs for name in backdrops_of(pair, CONFIG)}
    assert len(used) > len(BACKDROPS) / 2
    assert used <= set(BACKDROPS)
    only = dataclasses.replace(CONFIG, backdrops=("night",), held_out=(("retro blob", "night"),))
    assert all(backdrops_of(pair, only) == ([] if pair.style == "retro blob" else ["night"]) for pair in pairs)
