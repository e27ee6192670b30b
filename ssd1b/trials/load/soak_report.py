"""What is told of the soak test: tables, goals that were missed, and the pictures that differ."""

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssd1b.command import show
from ssd1b.provenance import machine
from ssd1b.recipes.serving import ServeSoak
from ssd1b.trials.load.soak_check import Compared, compare, stratified
from ssd1b.trials.load.soak_tally import Moved, Told, bank_line, by_dialect, move_line, verdict
from ssd1b.trials.load.soak_wishes import Wish
from ssd1b.trials.load.wardrobe import Wardrobe
from ssd1b.trials.recovery import table


@dataclass(frozen=True, kw_only=True)
class Day:
    """Everything that is known of a run."""

    told: Sequence[Told]
    lost: Sequence[Wish]
    """Requests that nobody answered while anybody waited."""
    wardrobe: Wardrobe
    moved: Sequence[Moved]
    died: Sequence[str]
    swapped: Sequence[Mapping[str, Any]]
    counters: dict[tuple[str, str], float]
    trouble: Mapping[str, int]
    seconds: float


def reported(config: ServeSoak, day: Day, bundles: Mapping[str, Path]) -> dict[str, Any]:
    """Print what became of the day, compare its pictures, and return all of it.

    Raises:
        RuntimeError: a goal was missed; what was found is printed before.
    """
    told, wardrobe = list(day.told), day.wardrobe
    lines = by_dialect(told, wardrobe, config.patience_s)
    lines[-1]["lost"] += len(day.lost)
    printed(lines)
    for error, times in errors(told, wardrobe, config.patience_s).items():
        show(f"failed, {times} x {error}")
    ends = [*(second.at for _, second in pairwise(day.moved)), inf]
    moves = [move_line(moved, until, told) for moved, until in zip(day.moved, ends, strict=True)]
    printed(moves)
    printed(day.swapped)
    bank = bank_line(day.counters)
    show(f"bank: {bank or 'no counters were found'}")
    pictures, unlike = compared(config, day, bundles)
    printed(pictures)
    for text, times in day.trouble.items():
        show(f"log, {times} x {text}")
    total = lines[-1]
    result = {
        "machine": machine(["ray", "torch", "openvino", "openai", "huggingface_hub", "replicate"]),
        "called_s": day.seconds,
        "requests": lines,
        "moves": moves,
        "kills": list(day.died),
        "adapters": dict(Counter(one["change"] for one in day.swapped)),
        "drawable_s": max((one["drawable_s"] for one in day.swapped if "drawable_s" in one), default=None),
        "bank": bank,
        "pictures": pictures,
        "unlike": unlike,
    }
    if missed := [f"{total[goal]} {goal}" for goal in ("failed", "lost") if total[goal]]:
        show(json.dumps(result, default=str))
        raise RuntimeError(f"of {total['sent']} requests {' and '.join(missed)}; the lines above say why")
    if unlike:
        show(json.dumps(result, default=str))
        raise RuntimeError(f"{unlike} pictures are others than an idle engine's, below {config.another_db:g} dB")
    return result


def printed(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table; values that a row lacks are "-"."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if names:
        for line in table([{name: str(row.get(name, "-")) for name in names} for row in rows]):
            show(line)


def errors(told: Sequence[Told], wardrobe: Wardrobe, patience_s: float) -> dict[str, int]:
    """Return how often which error was seen that should not have been."""
    failed = [one for one in told if verdict(one, wardrobe, patience_s) == "failed"]
    return Counter(f"{one.wish.dialect}: {one.error or 'drawn with an adapter that had gone'}"[:300] for one in failed)


def compared(config: ServeSoak, day: Day, bundles: Mapping[str, Path]) -> tuple[list[dict[str, Any]], int]:
    """Return a line for each version about its pictures, and how many are others than an idle engine's."""
    answered = [one for one in day.told if verdict(one, day.wardrobe, config.patience_s) == "answered"]
    chosen = stratified(answered, config.compared, stratum, np.random.default_rng([config.seed, 2]))
    lines, unlike = [], 0
    for engine, found in compare(chosen, bundles, config.backend, day.wardrobe):
        decibels = [one.db for one in found]
        others = [one for one in found if one.db < config.another_db]
        unlike += len(others)
        lines.append({
            "version": found[0].told.version,
            "engine": engine,
            "compared": len(found),
            "worst_db": round(min(decibels), 1),
            "median_db": round(statistics.median(decibels), 1),
            f"below_{config.bound_db:g}_db": sum(db < config.bound_db for db in decibels),
            "another_picture": len(others),
        })  # fmt: skip
        for one in others:
            show(f"another picture, {one.db:.1f} dB: {one.told.wish}, version {one.told.version}")
            keep(config, one)
    return lines, unlike


def stratum(told: Told) -> tuple[object, ...]:
    """Return what a sample is to have of every kind."""
    ask = told.wish.ask
    return told.version, told.wish.dialect, ask.adapter is not None, ask.steps


def keep(config: ServeSoak, one: Compared) -> None:
    """Write both pictures side by side, the endpoint's left, where something is kept."""
    if config.kept and one.told.pixels_HW3 is not None:
        pair_HW3 = np.concatenate([one.told.pixels_HW3, one.alone_HW3], axis=1)
        name = f"{one.told.wish.dialect}-{one.told.wish.ask.seed}-{one.db:.0f}dB.png".replace(" ", "-")
        Image.fromarray(pair_HW3).save(Path(config.kept) / name)
