"""A run of jobs.ingest in MLflow: the recipe, the figures, and the report's files.

Apart from report.py, since the tasks of an ingestion import that and MLflow takes seconds to import.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssd1b import tracking
from ssd1b.corpus import manifest
from ssd1b.corpus.ingest import ingest
from ssd1b.recipes.ingest import Ingest

EXPERIMENT = "ingest"


def recorded(config: Ingest) -> dict[str, Any]:
    """Ingest, and keep what came of it as a run named like the manifest or candidates; return it with the run's id.

    A run that fails is there too, as FAILED and with its recipe. What was made does not depend on MLflow: it is whole
    on disk before anything is logged of it.

    Raises:
        ValueError, OSError: as `ingest` does; ValueError too where no MLflow store answers.
    """
    made = "candidates" if config.pictures == "later" else "manifest"
    with tracking.run(EXPERIMENT, config.name, tags={made: config.name, "source": config.source}) as run:
        run.params(config)
        result = ingest(config)
        run.metrics(metrics(result))
        folder = Path(result["folder"])
        for file in (manifest.SUMMARY, manifest.REJECTS, manifest.SHEET):
            run.artifact(folder / file)
    return {**result, "run_id": run.run_id}


def metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a result: rows in and out, one for each reason, bucket and split, and the speed."""
    counted = {
        f"{kind}.{name}": rows for kind in ("rejected", "buckets", "splits") for name, rows in result[kind].items()
    }
    named = {name: result[name] for name in ("rows_in", "rows_kept", "not_selected", "shards", "parts", "seconds")}
    speed = result["rows_in"] / max(result["seconds"], 0.1)
    return {**named, **counted, "share_kept": result["rows_kept"] / result["rows_in"], "rows_per_s": speed}
