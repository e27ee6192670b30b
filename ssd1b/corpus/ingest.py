"""From a source to a manifest: every row is judged, and what is left out is counted under a named reason.

    shards -> read -> judge -> parts          in Ray Data tasks, one per shard
    parts -> duplicates -> parts without      by sample_id and by picture, over all shards

All is written aside and takes the manifest's name at the end, so that a rerun replaces it or leaves it as it was.
Weak point: between the two renames of a replacement, microseconds apart, a kill leaves the old manifest under
`.<name>.old`, and the next run of the recipe starts from nothing, as it does anyway.
"""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssd1b.command import nearest, show
from ssd1b.corpus import manifest
from ssd1b.corpus.filters import judge, selected
from ssd1b.corpus.pipeline import Report, each
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.corpus.sources import Shard, read, shards
from ssd1b.recipes.ingest import Ingest

REJECTS_PER_REASON = 20
"""How many rejects of a reason each shard reports by name."""


def ingest(config: Ingest) -> dict[str, Any]:
    """Make the manifest that a recipe describes and return what became of every row.

    rows_in == rows_kept + not_selected + the sum of rejected.

    Raises:
        ValueError: the source is not there, a style is not in it, or no row is left; the old manifest stays.
        OSError: a part cannot be written.
    """
    started = time.monotonic()
    found = shards(config)
    final = manifest.folder_of(config.name)
    aside = final.with_name(f".{config.name}.{os.getpid()}")
    for orphan in final.parent.glob(f".{config.name}.*"):
        shutil.rmtree(orphan)
    work = [{"number": number, "shard": asdict(shard)} for number, shard in enumerate(found)]
    try:
        tally = Counter[str]()
        rejects: list[dict[str, Any]] = []
        seen: dict[str, set[str]] = {"style": set(), "subgroup": set()}
        for done, report in enumerate(each(work, partial(shard_worker, config, aside)), start=1):
            tally.update(report["tally"])
            rejects += report["rejects"]
            for field, values in seen.items():
                values.update(report[field])
            show(f"ingest {config.name}: {done}/{len(work)} shards, {tally['rows_in']} rows in, {tally['kept']} usable")
        check_selection(config, seen)
        rejects += drop_duplicates(aside, tally)
        result = summary(config, aside, final, tally, rejects, len(found))
        result["seconds"] = round(time.monotonic() - started, 1)
        (aside / manifest.SUMMARY).write_text(json.dumps(result, indent=1))
        replace(final, aside)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return result


def shard_worker(config: Ingest, aside: Path) -> partial[Report]:
    return partial(ingest_shard, config, aside)


def ingest_shard(config: Ingest, aside: Path, work: dict[str, Any]) -> Report:
    """Write the usable rows of one shard as parts, and report the counts."""
    tally = Counter[str]()
    rejects: list[Reject] = []
    rows: dict[str, list[dict[str, Any]]] = {}
    written = Counter[str]()
    seen: dict[str, set[str]] = {"style": set(), "subgroup": set()}

    def flush(bucket: str) -> None:
        part = f"part-{work['number']:05d}-{written[bucket]:04d}.parquet"
        manifest.write_part(rows.pop(bucket), aside / f"bucket={bucket}" / part)
        written[bucket] += 1

    for found in islice(read(Shard(**work["shard"]), config), config.rows_limit):
        if isinstance(found, Reject):
            judged: dict[str, Any] | Reject = found
        else:
            seen["style"].add(found.style or "")
            seen["subgroup"].add(found.subgroup or "")
            if not selected(found, config):
                tally.update(rows_in=1, not_selected=1)
                continue
            judged = judge(found, config)
        if isinstance(judged, Reject):
            tally.update({"rows_in": judged.rows, judged.reason.value: judged.rows})
            rejects.append(judged)
            continue
        tally.update(rows_in=1, kept=1)
        rows.setdefault(judged["bucket"], []).append(judged)
        if len(rows[judged["bucket"]]) == config.part_rows:
            flush(judged["bucket"])
    for bucket in list(rows):
        flush(bucket)
    return {
        "tally": tally,
        "rejects": [asdict(reject) for reject in sample(rejects)],
        **{field: sorted(values) for field, values in seen.items()},
    }


def sample(rejects: Iterable[Reject]) -> Iterator[Reject]:
    """Yield the first few rejects of each reason, and every file that cannot be read."""
    counted = Counter[str]()
    for reject in rejects:
        counted[reject.reason] += 1
        if counted[reject.reason] <= REJECTS_PER_REASON or reject.reason is Reason.UNREADABLE_SHARD:
            yield reject


def check_selection(config: Ingest, seen: dict[str, set[str]]) -> None:
    """Raise ValueError if the recipe asks for a style or subgroup that the source does not have."""
    for field, wanted in (("style", config.styles), ("subgroup", config.subgroups)):
        for value in sorted(set(wanted) - seen[field]):
            known = sorted(seen[field] - {""})
            raise ValueError(f"no {field} {value!r} in this source{nearest(value, known)}; it has {', '.join(known)}")


def drop_duplicates(folder: Path, tally: Counter[str]) -> list[dict[str, Any]]:
    """Rewrite the parts without repeated keys and repeated pictures, count both and return a sample of them.

    Of equal pictures the one with the smallest sample_id stays, whatever the order in which tasks ended.
    """
    parts = manifest.part_files(folder)
    tables = [pq.read_table(part, columns=["sample_id", "sha256"], partitioning=None) for part in parts]
    if not tables:
        return []
    ids_N = np.concatenate([table["sample_id"].to_numpy() for table in tables])
    sha256_N = np.concatenate([table["sha256"].to_numpy().astype("S32") for table in tables])  # its first 128 bits
    again_N = repeats(ids_N, np.arange(len(ids_N)))
    twin_N = np.zeros_like(again_N)
    twin_N[~again_N] = repeats(sha256_N[~again_N], ids_N[~again_N])
    rejects: list[Reject] = []
    start = 0
    for part, table in zip(parts, tables, strict=True):
        again, twin = (mask[start : start + len(table)] for mask in (again_N, twin_N))
        start += len(table)
        if not (again | twin).any():
            continue
        rows = pq.read_table(part, partitioning=None).to_pylist()
        for row, is_again, is_twin in zip(rows, again, twin, strict=True):
            if is_again or is_twin:
                reason = Reason.DUPLICATE_KEY if is_again else Reason.DUPLICATE
                tally.update({reason.value: 1})
                rejects.append(Reject(reason=reason, source=row["source"], key=row["key"], detail=row["sha256"]))
        left = [row for row, dropped in zip(rows, again | twin, strict=True) if not dropped]
        manifest.write_part(left, part) if left else part.unlink()
    return [asdict(reject) for reject in sample(rejects)]


def repeats(value_N: np.ndarray[Any, Any], rank_N: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return which entries equal another of lower rank, as booleans."""
    order_N = np.lexsort((rank_N, value_N))
    repeated_N = np.zeros(len(value_N), bool)
    repeated_N[order_N[1:]] = value_N[order_N[1:]] == value_N[order_N[:-1]]
    return repeated_N


def summary(
    config: Ingest, aside: Path, final: Path, tally: Counter[str], rejects: list[dict[str, Any]], shard_count: int
) -> dict[str, Any]:
    """Count what is in the parts, write the sample of rejects and return the job's result."""
    parts = manifest.part_files(aside)
    rejected = {reason.value: tally[reason.value] for reason in Reason if tally[reason.value]}
    if not parts:
        raise ValueError(
            f"nothing is left of {tally['rows_in']} rows of {config.source!r}: {tally['not_selected']} not selected, "
            f"rejected {rejected}; {rejects[0] if rejects else 'no row was read'}"
        )
    columns = ["split", "style", "bucket"]
    table = pa.concat_tables([pq.read_table(part, columns=columns, partitioning=None) for part in parts])
    counts = {name: dict(Counter(value or "none" for value in table[name].to_pylist())) for name in columns}
    assert tally["rows_in"] == len(table) + tally["not_selected"] + sum(rejected.values()), "a row has vanished"
    with (aside / manifest.REJECTS).open("w") as file:
        file.writelines(json.dumps(reject) + "\n" for reject in rejects)
    return {
        "manifest": config.name,
        "folder": str(final),
        "shards": shard_count,
        "rows_in": tally["rows_in"],
        "rows_kept": len(table),
        "not_selected": tally["not_selected"],
        "rejected": rejected,
        "unreadable": [
            f"{reject['key']}: {reject['detail']}"
            for reject in rejects
            if reject["reason"] == Reason.UNREADABLE_SHARD.value
        ],
        "rejects_file": str(final / manifest.REJECTS),
        "splits": counts["split"],
        "styles": counts["style"],
        "buckets": counts["bucket"],
        "parts": len(parts),
    }


def replace(final: Path, aside: Path) -> None:
    """Give the folder `aside` the name `final`."""
    old = final.with_name(f".{final.name}.old")
    if final.exists():
        final.rename(old)
    aside.rename(final)
    shutil.rmtree(old, ignore_errors=True)
