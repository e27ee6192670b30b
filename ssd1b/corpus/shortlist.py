"""jobs.ingest with pictures=later: all metadata of a corpus of URLs judged at once, and what is worth fetching kept.

    <home>/candidates/<name>/bucket=<W>x<H>/part-<n>.parquet    see candidates.py; "unknown" where no size is declared
    <home>/candidates/<name>/_summary.json, _rejects.jsonl, _report.png    as a manifest has them

The second half is the same recipe again, with path=candidates:NAME: it fetches and judges the pictures.
"""

import dataclasses
import json
import shlex
import time
from pathlib import Path
from typing import Any

from ssd1b.command import show
from ssd1b.corpus import manifest
from ssd1b.corpus.aside import written_aside
from ssd1b.corpus.candidates import Chosen, Clock, candidates
from ssd1b.corpus.reasons import Reason
from ssd1b.corpus.report import write_sheet
from ssd1b.corpus.sources import CANDIDATES, candidates_folder, files
from ssd1b.recipes.ingest import RECIPES, Ingest

SOURCES = ("grit", "laion", "coyo", "datacomp")
PART_ROWS = 1 << 18
"""Rows of a written file: the elastic order indexes many at once, and jobs.ingest reads each in sixteen shards."""


def shortlist(
    config: Ingest, *, folder: Path | None = None, part_rows: int = PART_ROWS, clock: Clock | None = None
) -> dict[str, Any]:
    """Write the candidates that a recipe describes and return what became of every row.

    rows_in == rows_kept + not_selected + the sum of rejected. `folder` is <home>/candidates/<name> unless it is given.

    Raises:
        ValueError: the source lists no URLs or is not there, or no row is left; the old candidates stay.
        OSError: nothing can be written.
    """
    started = time.monotonic()
    check(config)
    found = files(config, ".parquet")
    final = folder or candidates_folder(config.name)
    with written_aside(final) as aside:
        chosen = candidates(found, config, aside, part_rows=part_rows, clock=clock or Clock())
        result = summary(config, aside, final, chosen, len(found))
        write_sheet(aside, config, result, chosen.samples)
        result["seconds"] = round(time.monotonic() - started, 1)
        (aside / manifest.SUMMARY).write_text(json.dumps(result, indent=1))
    show(f"{result['rows_kept']:,} of {result['rows_in']:,} rows are worth fetching; no picture was fetched yet. Next:")
    show(f"  {result['next']}")
    return result


def check(config: Ingest) -> None:
    """Raise ValueError if a recipe cannot be judged by metadata alone."""
    if config.source == "midjourney":
        raise ValueError(
            "pictures=later: the Midjourney scrape has no scores to choose by, and its sheets are cut into pictures "
            "only when they are there; run the recipe without it"
        )
    if config.source not in SOURCES:
        raise ValueError(
            f"pictures=later: {config.source} holds its pictures, so that there are none to fetch; "
            f"corpora of URLs are {', '.join(SOURCES)}"
        )
    for name, values in (("style", config.styles), ("subgroup", config.subgroups)):
        if values:
            raise ValueError(f"no {name} {values[0]!r} in this source: {config.source} says no {name} of its rows")


def summary(config: Ingest, aside: Path, final: Path, chosen: Chosen, file_count: int) -> dict[str, Any]:
    """Write the sample of rejects and return the job's result, under the names that jobs.ingest's has."""
    rejects = chosen.samples.told()
    rejected = {reason.value: chosen.tally[reason.value] for reason in Reason if reason.value in chosen.tally}
    rows_in, kept = sum(chosen.tally.values()), chosen.tally.get("kept", 0)
    not_selected = chosen.tally.get("not_selected", 0)
    if not kept:
        raise ValueError(
            f"nothing is left of {rows_in} rows of {config.source!r}: {not_selected} not selected, "
            f"rejected {rejected}; {chosen.samples.example()}"
        )
    assert kept == chosen.splits.total() == chosen.buckets.total(), "a row has vanished"
    with (aside / manifest.REJECTS).open("w") as file:
        file.writelines(json.dumps(reject) + "\n" for reject in rejects)
    unreadable = [reject for reject in rejects if reject["reason"] == Reason.UNREADABLE_SHARD.value]
    return {
        "candidates": config.name,
        "folder": str(final),
        "shards": file_count,
        "rows_in": rows_in,
        "rows_kept": kept,
        "not_selected": not_selected,
        "rejected": rejected,
        "unreadable": [f"{reject['key']}: {reject['detail']}" for reject in unreadable],
        "rejects_file": str(final / manifest.REJECTS),
        "report": str(final / manifest.SHEET),
        "splits": dict(chosen.splits),
        "buckets": dict(chosen.buckets),
        "parts": len(manifest.part_files(aside)),
        "next": following(config),
    }


def following(config: Ingest) -> str:
    """Return the command that fetches the candidates: the same recipe with the same settings, but its path."""
    later = dataclasses.replace(config, path=f"{CANDIDATES}{config.name}", pictures="fetch")
    changed = settings(later, RECIPES[config.source]())
    if not (config.fetch.contact or config.fetch.mirror):
        changed.append("fetch.contact=you@example.org")
    flags = [word for each in changed for word in ("--set", each)]
    return shlex.join(["python", "-m", "jobs.ingest", config.source, *flags])


def settings(config: Any, default: Any, prefix: str = "") -> list[str]:
    """Return what makes one recipe of another, as `--set` takes it."""
    found = []
    for each in dataclasses.fields(config):
        value, usual = getattr(config, each.name), getattr(default, each.name)
        if dataclasses.is_dataclass(value):
            found += settings(value, usual, f"{prefix}{each.name}.")
        elif value != usual:
            found.append(f"{prefix}{each.name}={value if isinstance(value, str) else json.dumps(value)}")
    return found
