"""From a source to a manifest: every row is judged, and what is left out is counted under a named reason.

    shards -> read -> judge -> parts          in Ray Data tasks, one per shard
    parts -> duplicates -> parts without      by sample_id, by bytes and by likeness, over all shards
    parts -> report                           the counts as JSON and as a picture

All is written aside and takes the manifest's name at the end, so that a rerun replaces it or leaves it as it was.
"""

import errno
import json
import time
from collections import Counter
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from ssd1b.command import nearest, show
from ssd1b.corpus import manifest
from ssd1b.corpus.aside import written_aside
from ssd1b.corpus.duplicates import drop_duplicates
from ssd1b.corpus.filters import judge, selected
from ssd1b.corpus.pipeline import Report, each
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.corpus.report import write_sheet
from ssd1b.corpus.samples import Samples
from ssd1b.corpus.shortlist import shortlist
from ssd1b.corpus.sources import Shard, read, shards
from ssd1b.recipes.ingest import Ingest

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def ingest(config: Ingest) -> dict[str, Any]:
    """Make the manifest that a recipe describes and return what became of every row.

    rows_in == rows_kept + not_selected + the sum of rejected. With pictures=later there is no manifest yet: see
    shortlist.py.

    Raises:
        ValueError: the source is not there, a style is not in it, or no row is left; the old manifest stays.
        OSError: a part, or a fetched picture, cannot be written; the old manifest stays.
    """
    final = manifest.folder_of(config.name)
    try:
        if config.pictures == "later":
            return shortlist(config)
        with written_aside(final) as aside:
            return make(config, aside, final)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        place = error.filename or final.parent
        raise OSError(error.errno, f"{error.strerror}: make room for {place}, then run again") from error


def make(config: Ingest, aside: Path, final: Path) -> dict[str, Any]:
    """Do so in the folder `aside`, which will be called `final`."""
    started = time.monotonic()
    found = shards(config)
    work = [{"number": number, "shard": asdict(shard)} for number, shard in enumerate(found)]
    tally = Counter[str]()
    samples = Samples()
    seen: dict[str, set[str]] = {"style": set(), "subgroup": set()}
    for done, report in enumerate(each(work, partial(shard_worker, config, aside)), start=1):
        tally.update(report["tally"])
        samples.merge(report["samples"])
        for field, values in seen.items():
            values.update(report[field])
        show(f"ingest {config.name}: {done}/{len(work)} shards, {tally['rows_in']} rows in, {tally['kept']} usable")
    for orphan in aside.glob("bucket=*/.part-*"):
        orphan.unlink()  # half a part, of a task that died with its node
    check_selection(config, seen)
    drop_duplicates(aside, config, tally, samples)
    result = summary(config, aside, final, tally, samples, len(found))
    write_sheet(aside, config, result, samples)
    result["seconds"] = round(time.monotonic() - started, 1)
    (aside / manifest.SUMMARY).write_text(json.dumps(result, indent=1))
    return result


def shard_worker(config: Ingest, aside: Path) -> partial[Report]:
    return partial(ingest_shard, config, aside)


def ingest_shard(config: Ingest, aside: Path, work: dict[str, Any]) -> Report:
    """Write the usable rows of one shard as parts, and report the counts."""
    tally = Counter[str]()
    samples = Samples()
    rows: dict[str, list[dict[str, Any]]] = {}
    written = Counter[str]()
    seen: dict[str, set[str]] = {"style": set(), "subgroup": set()}

    def flush(bucket: str) -> None:
        part = f"part-{work['number']:05d}-{written[bucket]:04d}.parquet"
        manifest.write_part(rows.pop(bucket), aside / f"bucket={bucket}" / part)
        written[bucket] += 1

    for found in islice(read(Shard(**work["shard"]), config), config.rows_limit):
        picture = None
        if isinstance(found, Reject):
            judged: dict[str, Any] | Reject = found
        else:
            picture = found.image
            seen["style"].add(found.style or "")
            seen["subgroup"].add(found.subgroup or "")
            if not selected(found, config):
                tally.update(rows_in=1, not_selected=1)
                continue
            judged = judge(found, config)
        if isinstance(judged, Reject):
            tally.update({"rows_in": judged.rows, judged.reason.value: judged.rows})
            samples.add(judged, picture, max_pixels=config.max_pixels)
            continue
        tally.update(rows_in=1, kept=1)
        rows.setdefault(judged["bucket"], []).append(judged)
        if len(rows[judged["bucket"]]) == config.part_rows:
            flush(judged["bucket"])
    for bucket in list(rows):
        flush(bucket)
    return {
        "tally": tally,
        "samples": samples.rows(),
        **{field: sorted(values) for field, values in seen.items()},
    }


def check_selection(config: Ingest, seen: dict[str, set[str]]) -> None:
    """Raise ValueError if the recipe asks for a style or subgroup that the source does not have."""
    for field, wanted in (("style", config.styles), ("subgroup", config.subgroups)):
        for value in sorted(set(wanted) - seen[field]):
            known = sorted(seen[field] - {""})
            raise ValueError(f"no {field} {value!r} in this source{nearest(value, known)}; it has {', '.join(known)}")


def summary(
    config: Ingest, aside: Path, final: Path, tally: Counter[str], samples: Samples, shard_count: int
) -> dict[str, Any]:
    """Count what is in the parts, write the sample of rejects and return the job's result."""
    parts = manifest.part_files(aside)
    rejects = samples.told()
    rejected = {reason.value: tally[reason.value] for reason in Reason if tally[reason.value]}
    if not parts:
        raise ValueError(
            f"nothing is left of {tally['rows_in']} rows of {config.source!r}: {tally['not_selected']} not selected, "
            f"rejected {rejected}; {samples.example()}"
        )
    kept = 0
    counts = {name: Counter[str]() for name in ("split", "style", "bucket")}
    for part in parts:
        table = pq.read_table(part, columns=list(counts), partitioning=None)
        kept += len(table)
        for name, counter in counts.items():
            found = pc.value_counts(table[name]).to_pylist()
            counter.update({entry["values"] or "none": entry["counts"] for entry in found})
    assert tally["rows_in"] == kept + tally["not_selected"] + sum(rejected.values()), "a row has vanished"
    with (aside / manifest.REJECTS).open("w") as file:
        file.writelines(json.dumps(reject) + "\n" for reject in rejects)
    return {
        "manifest": config.name,
        "folder": str(final),
        "shards": shard_count,
        "rows_in": tally["rows_in"],
        "rows_kept": kept,
        "not_selected": tally["not_selected"],
        "rejected": rejected,
        "unreadable": [
            f"{reject['key']}: {reject['detail']}"
            for reject in rejects
            if reject["reason"] == Reason.UNREADABLE_SHARD.value
        ],
        "rejects_file": str(final / manifest.REJECTS),
        "report": str(final / manifest.SHEET),
        "splits": dict(counts["split"]),
        "styles": dict(counts["style"]),
        "buckets": dict(counts["bucket"]),
        "parts": len(parts),
    }
