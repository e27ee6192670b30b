"""The storage root of these tests has an empty MLflow store in it."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def home(home: Path, empty_store: Path) -> Path:
    shutil.copy(empty_store, home / "mlflow.db")
    return home
