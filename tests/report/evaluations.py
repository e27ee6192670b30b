"""An evaluation as JSON with every kind of number in it, and its pictures."""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssd1b.report import document
from ssd1b.report.curves import NOT_KEPT
from ssd1b.report.evidence import Evidence
from ssd1b.report.page import render

Json = dict[str, Any]
EXTRACTORS = {
    name: {"name": name, "kind": kind, "source": f"weights of {name}", "dimension": dimension, "sha256": letter * 64,
           "licence": "Apache-2.0"}
    for name, kind, dimension, letter in (("nano", "image-text", 256, "a"), ("efflite0", "pictures", 1280, "b"))
}  # fmt: skip
CONDITIONS = {
    "prompts": 6, "prompts_sha256": "c" * 64, "seeds": [11, 16], "sampler": "dpmpp_2m", "steps": 17, "guidance": 4.5,
    "negative": None, "side_px": 136, "scorer": f"nano/image-text/256/{'a' * 64}",
    "features": f"efflite0/pictures/1280/{'b' * 64}",
}  # fmt: skip
NOISE = 12
MOVED = ("score", "distance", "middle", "border", "pull")
KINDS = (("held-out object", "flat vector", "food"), ("trained", "3d render", "animal"))


def estimate(value: float, count: int = 4) -> Json:
    return {"value": value, "low": value - 0.0913, "high": value + 0.0827, "count": count}


def ended(**numbers: float) -> Json:
    sides = (("low", -0.05), ("high", 0.06))
    ends = {f"{name}_{end}": value + by for name, value in numbers.items() for end, by in sides}
    return {**numbers, **ends}


def group(by: str, name: str, prompts: int) -> Json:
    names = ("score_drawing", "score_teacher", "score_student", "score_kept", "distance_ratio")
    return {"by": by, "name": name, "prompts": prompts,
            "numbers": {each: estimate(0.311 + 0.0517 * i) for i, each in enumerate(names)}}  # fmt: skip


def distance(name: str, value: float, warning: str = "") -> Json:
    return {"name": name, "value": value, "low": value - 0.4, "high": value + 0.3, "pictures": 61, "references": 257,
            "extractor": EXTRACTORS["efflite0"], "warning": warning}  # fmt: skip


def prompt(i: int, text: str = "", probe: str = "", plain: int | None = None) -> Json:
    novelty, style, category = KINDS[i % 2]
    scored = not probe
    return {
        "prompt": text or f"a thing number {i}, {style} style", "seed": 11 + i, "novelty": novelty, "style": style,
        "category": category, "probe": probe, "plain": plain,
        "score_teacher": 0.41 + 0.01 * math.sin(i) if scored else None,
        "score_student": 0.35 + 0.1 * math.sin(7 * i) if scored else None,
        "distance": 0.5 + 0.3 * math.cos(3 * i) if scored else None,
        "pictures": {side: f"pictures/{side}/{i:05d}.png" for side in ("drawing", "teacher", "student")},
    }  # fmt: skip


def evaluation(prompts: int = 5) -> Json:
    """Return a document of that many prompts and one probe."""
    numbers = ended(
        score_kept=0.913, heldout_score_kept=0.871, train_score_kept=0.954, distance_ratio=0.423, variety_ratio=0.982,
        heldout_score_student=0.2213, train_score_student=0.3317, nano_score_student=26.43,
    )  # fmt: skip
    counts = {"prompts": 5.0, "heldout_prompts": 3.0, "train_prompts": 2.0}
    cost = {"parameters_teacher": 8046532, "parameters_student": 4700123, "parameters_ratio": 0.584,
            "step_ms_teacher": 157.3, "step_ms_student": 98.7, "step_speedup": 1.594}  # fmt: skip
    return {
        "model": "models:/ssd1b-nano/3", "teacher": "nano+poster", "when": "2026-11-24T12:39:00+00:00", "schema": 1,
        "numbers": {**numbers, **counts, **cost},
        "conditions": {"teacher": dict(CONDITIONS), "student": dict(CONDITIONS)},
        "extractors": {"scorer": EXTRACTORS["nano"], "features": EXTRACTORS["efflite0"]},
        "groups": [group(by, name, 3 - i) for k, by in enumerate(("novelty", "style", "category"))
                   for i, name in enumerate(kind[k] for kind in KINDS)],
        "distances": {"teacher": [distance("KID-efflite0", 1.21)], "student": [distance("KID-efflite0", 1.47)],
                      "student to teacher": [distance("KID-efflite0", 0.217, "61 pictures do not tell it from 0")]},
        "gaps": [{"of": "student", "best": "food", "worst": "animal", "gap": estimate(0.137), "by_chance": 0.119,
                  "p_value": 0.0213}],
        "adherence": [{"what": "background", "of": "student", "share": estimate(0.737),
                       "by": {"white": estimate(0.913), "blue": estimate(0.171)}, "chance": 0.519}],
        "leaks": [{"probe": "please", "of": "student", "prompts": 7,
                   **{name: estimate(0.123 + 0.0311 * i) for i, name in enumerate(MOVED)}}],
        "windows": [{"window": {"name": "fid_teacher", "low": 23.01, "high": 23.95}, "value": 24.37, "inside": False}],
        "prompts": [*(prompt(i) for i in range(prompts)), prompt(prompts, "a thing, please", "please", 0)],
    }  # fmt: skip


def drawn(told: Json, folder: Path, **more: Any) -> str:
    """Return the page of a document."""
    return render(Evidence(document=document.parse(told), folder=folder, **{"training": NOT_KEPT, **more}))


def keep_pictures(told: Json, folder: Path, side_px: int) -> None:
    """Draw what is as hard to compress as a photograph: gradients with noise, about 14 kB of WebP at 256 px."""
    generator = np.random.default_rng(0)
    across = np.linspace(0, 1, side_px)
    for each in told["prompts"]:
        for path in each["pictures"].values():
            tilt = generator.random((3, 2))
            base = np.stack([a * across[:, None] + b * across[None] for a, b in tilt], -1) * 120 + 8
            pixels = base + generator.normal(0, NOISE, base.shape)
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / path, compress_level=1)


def leaves(told: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield (path, value) of everything in a document that is neither a list nor a mapping."""
    items = told.items() if isinstance(told, dict) else enumerate(told) if isinstance(told, list) else None
    if items is None:
        yield path, told
        return
    for key, value in items:
        yield from leaves(value, (*path, key))


def put(told: Json, path: tuple[Any, ...], value: Any) -> Json:
    """Return a copy of a document with one value replaced."""
    changed = copy.deepcopy(told)
    at: Any = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return changed
