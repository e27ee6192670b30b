"""From a manifest to latents: the VAE's posterior of every selected picture, in Parquet, one partition per bucket.

    <home>/latents/<name>/bucket=<W>x<H>/part-*.parquet      the parts of the manifest, each with the same name
    <home>/latents/<name>/_summary.json                      what jobs.encode returned; exists once all parts do

Mean and standard deviation are kept rather than one frozen draw, so that every epoch draws anew; both are scaled as the
UNet sees them. Captions stay text: encoding them takes 0.6 % of a distillation step. A part says from what
it was made, so that a rerun after a kill encodes only what is missing or stale. A part of the manifest that cannot be
read costs its rows, counted under unreadable_shard, and is tried again by the next run.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ssd1b.command import nearest, show
from ssd1b.corpus import manifest
from ssd1b.corpus.encoder import SELECTED_BY, PartEncoder, finished
from ssd1b.corpus.pipeline import Report, each
from ssd1b.corpus.reasons import Reason
from ssd1b.home import home
from ssd1b.models.files import load_vae
from ssd1b.recipes.encode import Encode


def folder_of(name: str) -> Path:
    return home() / "latents" / name


def parts(name: str) -> list[Path]:
    """Return the parts of whole latents, in order.

    Raises:
        ValueError: there are none of that name, or their encoding has not ended.
    """
    folder = folder_of(name)
    if not (folder / manifest.SUMMARY).exists():
        known = sorted(path.parent.name for path in folder.parent.glob(f"*/{manifest.SUMMARY}"))
        raise ValueError(f"no finished latents {name!r} under {folder.parent} (there: {known}): run jobs.encode first")
    return manifest.part_files(folder)


def check_same_vae(names: Sequence[str]) -> None:
    """Raise ValueError unless all of these latents come from one VAE: what one wrote another cannot read."""
    told = {name: json.loads((folder_of(name) / manifest.SUMMARY).read_text()) for name in names}
    for name, summary in told.items():
        if "vae" not in summary:
            raise ValueError(f"latents {name!r} do not say of which VAE they are: run jobs.encode for them again")
    if len({(summary["vae"], summary["scaling_factor"]) for summary in told.values()}) > 1:
        models = ", ".join(f"{name!r} by that of {summary['model']!r}" for name, summary in told.items())
        raise ValueError(f"latents of unlike VAEs cannot be mixed: {models}; encode all with one --set model=...")


def encode(config: Encode) -> dict[str, Any]:
    """Encode the rows that a recipe selects and return what became of every row of the manifest.

    rows_in == rows_kept + not_selected + the sum of rejected, over reused and new parts alike.

    Raises:
        ValueError: no such manifest or VAE, a style or subgroup that it does not have, or nothing selected.
        OSError: a part cannot be written. No half part is left, and finished ones are kept for the next run.
    """
    started = time.monotonic()
    sources, unreadable = sound(manifest.parts(config.manifest))
    check_selection(config, list(sources))
    folder = folder_of(config.name)
    sweep(folder)
    origin = {**vae_identity(config.model), **{field: getattr(config, f"{field}s") for field in SELECTED_BY}}
    tally = Counter[str]()
    work = []
    wanted = set()
    for source, rows in sources.items():
        part = folder / source.parent.name / source.name
        made_from = fingerprint({**origin, "dtype": config.dtype, "rows": manifest.digest_of(source)})
        wanted.add(part)
        if done := finished(part, made_from):
            tally.update({**done, "parts_reused": 1})
        else:
            work.append({"source": str(source), "part": str(part), "made_from": made_from, "rows": rows})
    stale = [part for part in manifest.part_files(folder) if part not in wanted]
    if work or stale:
        (folder / manifest.SUMMARY).unlink(missing_ok=True)
    for part in stale:
        part.unlink()
    lost = manifest_rows(config.manifest) - sum(sources.values())
    assert lost >= 0, "the manifest has more rows than it says"
    if lost:
        tally.update({"rows_in": lost, Reason.UNREADABLE_SHARD.value: lost})
    try:
        for report in encoded(config, work):
            tally.update(report["tally"])
            unreadable += report["unreadable"]
            show(f"encode {config.name}: {tally['parts_done']}/{len(work)} parts, {tally['rows_kept']} pictures")
        return finish(config, folder, tally, unreadable, origin, time.monotonic() - started)
    except OSError as error:
        kept = f"{tally['parts_done'] + tally['parts_reused']} of {len(sources)} parts are done and stay"
        raise OSError(error.errno, f"{error.strerror or error}; {kept}: make room for {folder}, run again") from error


def encoded(config: Encode, work: list[dict[str, Any]]) -> Iterator[Report]:
    """Yield a report for each part as the actors finish it."""
    return each(
        work,
        partial(PartEncoder, config),
        actors=config.workers,
        cpus=0.0 if config.decode_tasks else config.decode_threads,  # else the actors could leave the tasks no CPU
        gpus=config.gpus_per_worker,
    )


def sound(sources: list[Path]) -> tuple[dict[Path, int], list[str]]:
    """Return the rows of each part of a manifest whose footer can be read, and what ails the others."""
    rows: dict[Path, int] = {}
    unreadable = []
    for source in sources:
        try:
            rows[source] = pq.read_metadata(source).num_rows
        except (OSError, pa.ArrowException) as error:
            unreadable.append(f"{source.name}: {str(error).splitlines()[0]}")
    return rows, unreadable


def manifest_rows(name: str) -> int:
    """Return how many rows a manifest says it has: those of parts that are gone or broken count too."""
    told: dict[str, int] = json.loads((manifest.folder_of(name) / manifest.SUMMARY).read_text())
    return told["rows_kept"]


def finish(
    config: Encode,
    folder: Path,
    tally: Counter[str],
    unreadable: list[str],
    origin: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """Write the summary that makes the latents whole, and return it."""
    rows_in, rows_kept, not_selected = (tally.pop(name, 0) for name in ("rows_in", "rows_kept", "not_selected"))
    done, reused = tally.pop("parts_done", 0), tally.pop("parts_reused", 0)
    rows_new = tally.pop("rows_new", 0)
    assert rows_in == rows_kept + not_selected + sum(tally.values()), "a row has vanished"
    if not rows_kept:
        raise ValueError(f"no row of manifest {config.manifest!r} is left: {not_selected} not selected, {dict(tally)}")
    result = {
        "latents": config.name,
        "folder": str(folder),
        "manifest": config.manifest,
        "model": config.model,
        "vae": origin["vae"],
        "scaling_factor": origin["scaling_factor"],
        "rows_in": rows_in,
        "rows_kept": rows_kept,
        "not_selected": not_selected,
        "rejected": dict(tally),
        "unreadable": unreadable,
        "parts_encoded": done,
        "parts_reused": reused,
        "pictures_per_s": round(rows_new / seconds, 1),
        "seconds": round(seconds, 1),
    }
    sweep(folder)
    aside = folder / f".{manifest.SUMMARY}"
    aside.write_text(json.dumps(result, indent=1))
    aside.replace(folder / manifest.SUMMARY)
    return result


def sweep(folder: Path) -> None:
    """Remove what processes that were killed have left of the parts that they were writing."""
    for orphan in folder.glob("bucket=*/.part-*"):
        orphan.unlink()


def check_selection(config: Encode, sources: list[Path]) -> None:
    """Raise ValueError if the recipe asks for a style, split or subgroup that the manifest does not have."""
    tables = []
    for path in sources:
        with suppress(OSError, pa.ArrowException):  # who encodes the part counts what cannot be read of it
            tables.append(pq.read_table(path, columns=list(SELECTED_BY), partitioning=None))
    for field in SELECTED_BY:
        known = {value for table in tables for value in table[field].unique().to_pylist()} - {None}
        for value in getattr(config, f"{field}s"):
            if value not in known:
                raise ValueError(
                    f"manifest {config.manifest!r} has no {field} {value!r}{nearest(value, known)}; "
                    f"it has {', '.join(sorted(known))}"
                )


def vae_identity(model: str) -> dict[str, Any]:
    """Return what tells one VAE from another: a hash of its weights, and its scale."""
    vae = load_vae(model)
    weights = hashlib.sha256()
    for name, tensor in sorted(vae.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.contiguous().numpy().tobytes())
    return {"vae": weights.hexdigest(), "scaling_factor": vae.config.scaling_factor}


def fingerprint(origin: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()
