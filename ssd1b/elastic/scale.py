"""The metadata path measured at full size: a corpus of URLs to the first batch of an epoch, every stage on its own.

Each part runs in a process of its own, so that what it takes at its peak is its own: the kernel's high-water mark
(VmHWM) less what the process held before it began. Two sizes tell what grows with the rows and what does not.
"""

import dataclasses
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssd1b.command import show
from ssd1b.corpus import synthetic
from ssd1b.corpus.candidates import BYTES_PER_ROW, Clock
from ssd1b.corpus.near_duplicates import NONE, near_duplicates
from ssd1b.corpus.shortlist import shortlist
from ssd1b.elastic.rows import Latents
from ssd1b.recipes.benchmark import CorpusScale
from ssd1b.recipes.ingest import grit

MIB = 1 << 20
FAMILY = 50
"""In the search for near duplicates one row in so many is a twin of another."""


def corpus_scale(config: CorpusScale) -> dict[str, Any]:
    """Run the metadata path over made-up rows at a tenth of the size and at the whole; return and print the figures.

    Raises:
        ValueError: rows that are no multiple of 400.
        RuntimeError: a part failed; or a figure that must agree does not.
    """
    if config.rows % (10 * synthetic.CYCLE) or config.rows <= 0:
        raise ValueError(
            f"rows={config.rows}: give a multiple of {10 * synthetic.CYCLE}, for two sizes of whole forties"
        )
    sizes = [config.rows // 10, config.rows]
    with tempfile.TemporaryDirectory(prefix="corpus-scale-", dir=config.scratch or None) as scratch:
        found = [at_size(rows, config, Path(scratch) / str(rows)) for rows in sizes]
    small, large = found
    result = {
        "rows": config.rows,
        "recipe": "grit",
        "sizes": found,
        "bytes_per_row": grown(small, large, "candidates"),
        "bytes_per_row_stated": BYTES_PER_ROW,
        "index_bytes_per_kept_row": grown(small, large, "first batch", per="kept"),
        "near_duplicates_bytes_per_row": grown(small, large, "near duplicates") if config.near_duplicates else None,
    }
    for line in table(result):
        show(line)
    return result


def at_size(rows: int, config: CorpusScale, folder: Path) -> dict[str, Any]:
    """Return the figures of one size; the files of the size are gone afterwards."""
    show(f"{rows:,} rows: writing metadata in GRIT's schema")
    corpus, out = folder / "corpus", folder / "candidates"
    parts = {"make": part("make", rows=rows, folder=str(corpus), seed=config.seed)}
    show(f"{rows:,} rows: filters, duplicates, buckets")
    parts["candidates"] = part("candidates", corpus=str(corpus), out=str(out), part_rows=config.part_rows)
    tally = parts["candidates"].pop("tally")
    if tally != synthetic.planted(rows):
        raise RuntimeError(f"the funnel of {rows} rows does not name what was planted: {tally}")
    order = {"folder": str(out), "global_batch": config.global_batch, "slices": config.slices, "seed": config.seed}
    show(f"{rows:,} rows: epochs")
    parts["first batch"] = part("batch", **order, at=0.0)
    for share in config.resume_at:
        parts[f"resume at {share:.0%}"] = part("batch", **order, at=share)
    if config.near_duplicates:
        show(f"{rows:,} rows: near duplicates of as many hashes")
        bits = grit().filters.near_duplicate_bits
        parts["near duplicates"] = part("near", rows=rows, distance=bits, seed=config.seed)
    return {"rows": rows, "kept": tally["kept"], "tally": tally, "parts": parts}


def grown(small: Mapping[str, Any], large: Mapping[str, Any], name: str, per: str = "rows") -> float:
    """Return by how many bytes a part's peak grows with each row more."""
    more = large["parts"][name]["peak_bytes"] - small["parts"][name]["peak_bytes"]
    return round(float(more / (large[per] - small[per])), 1)


def part(name: str, **options: Any) -> dict[str, Any]:
    """Run a part in a process of its own and return its figures; `wall_s` counts the start of Python too."""
    command = [sys.executable, "-m", "ssd1b.elastic.scale", name, json.dumps(options)]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    wall_s = round(time.perf_counter() - started, 2)
    if done.returncode:
        raise RuntimeError(f"the part {name} failed: {done.stderr[-2000:]}")
    return {**json.loads(done.stdout.splitlines()[-1]), "wall_s": wall_s}


def run_make(rows: int, folder: str, seed: int) -> dict[str, Any]:
    synthetic.write(Path(folder), rows, seed)
    return {"bytes": sum(path.stat().st_size for path in Path(folder).iterdir())}


def run_candidates(corpus: str, out: str, part_rows: int) -> dict[str, Any]:
    """Run what jobs.ingest runs with pictures=later, report and all."""
    clock = Clock()
    config = dataclasses.replace(grit(), path=corpus, pictures="later")
    result = shortlist(config, folder=Path(out), part_rows=part_rows, clock=clock)
    tally = {"kept": result["rows_kept"], **result["rejected"]}
    written = sum(path.stat().st_size for path in Path(out).rglob("*.parquet"))
    return {"tally": tally, "bytes": written, "stages": {name: round(s, 4) for name, s in clock.seconds.items()}}


def run_batch(folder: str, global_batch: int, slices: int, seed: int, at: float) -> dict[str, Any]:
    """Open the rows, go to a place in the first epoch and name the samples of the batch there, as a restart does."""
    rows = Latents.open(Path(folder))
    opened = time.perf_counter()
    order = rows.order(global_batch=global_batch, slices=slices, seed=seed)
    step = int(at * (order.slices_before(1) // slices))
    places = [order.slice_at(step, k) for k in range(slices)]
    ids = [rows.buckets[place.bucket].sample_ids[place.row_R] for place in places]
    found_s = time.perf_counter() - opened
    samples = np.concatenate(ids)
    assert len(np.unique(samples)) == global_batch, "a batch holds a sample twice"
    digest = hashlib.sha256(samples.tobytes()).hexdigest()[:16]
    return {"step": step, "place_s": round(found_s, 3), "samples": digest}


def run_near(rows: int, distance: int, seed: int) -> dict[str, Any]:
    """Search as many hashes of chance, one in fifty a near twin of another."""
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 1 << 63, rows, dtype=np.uint64)
    for start in range(0, rows - FAMILY, FAMILY):
        hashes[start] = hashes[start + 1] ^ np.uint64(0b11 << int(start % 60))
    ids = random.permutation(rows).astype(np.uint64)
    held = memory("VmHWM")
    started = time.perf_counter()
    keeper = near_duplicates(hashes, ids, distance)
    seconds = time.perf_counter() - started
    return {"search_s": round(seconds, 1), "found": int((keeper != NONE).sum()), "given_bytes": held}


def memory(field: str) -> int:
    """Return a figure of this process's memory in bytes: VmRSS now, VmHWM at its peak (Linux, proc(5))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {field} in /proc/self/status")


def table(result: Mapping[str, Any]) -> list[str]:
    """Return the figures as lines of text."""
    head = [f"{size['rows']:,} rows" for size in result["sizes"]]
    lines = [f"{'':44}" + "".join(f"{name:>20}" for name in head)]

    def line(name: str, values: list[str]) -> None:
        lines.append(f"{name:44}" + "".join(f"{value:>20}" for value in values))

    sizes = result["sizes"]
    for stage in sizes[0]["parts"]["candidates"]["stages"]:
        speeds = [size["rows"] / size["parts"]["candidates"]["stages"][stage] for size in sizes]
        line(f"{stage}, rows/s", [f"{speed:,.0f}" for speed in speeds])
    whole = [size["rows"] / size["parts"]["candidates"]["seconds"] for size in sizes]
    line("all of the metadata path, rows/s", [f"{speed:,.0f}" for speed in whole])
    for name in sizes[0]["parts"]:
        if name != "make":
            line(f"{name}, s", [f"{size['parts'][name]['seconds']:.2f}" for size in sizes])
            line(f"{name} with the start of Python, s", [f"{size['parts'][name]['wall_s']:.2f}" for size in sizes])
            line(f"{name}, peak MiB", [f"{size['parts'][name]['peak_bytes'] / MIB:,.0f}" for size in sizes])
    lines.append(f"bytes per row more: {result['bytes_per_row']} (stated {result['bytes_per_row_stated']}); "
                 f"index: {result['index_bytes_per_kept_row']} per kept row")  # fmt: skip
    return lines


PARTS: Mapping[str, Callable[..., dict[str, Any]]]
PARTS = {"make": run_make, "candidates": run_candidates, "batch": run_batch, "near": run_near}


def main(name: str, options: str) -> None:
    """Run a part and print its figures as one line."""
    before, started = memory("VmRSS"), time.perf_counter()
    answer = PARTS[name](**json.loads(options))
    spent = time.perf_counter() - started
    print(json.dumps({**answer, "seconds": round(spent, 2), "peak_bytes": memory("VmHWM") - before}))


if __name__ == "__main__":
    main(*sys.argv[1:])
