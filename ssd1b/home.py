"""Where runs keep what they make: one folder that every node can reach."""

import os
from pathlib import Path


def home() -> Path:
    """Return the storage root: $SSD1B_HOME, or `runs/` under the current folder.

    On a cluster set SSD1B_HOME to a shared file system; a job's working directory is a copy that goes with the job.
    """
    return Path(os.environ.get("SSD1B_HOME", "runs")).resolve()


def tracking_uri() -> str:
    """Return the MLflow tracking URI: $MLFLOW_TRACKING_URI, or a SQLite file under the storage root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"
