"""A storage root with an empty MLflow store in it: making the tables takes seconds, copying them does not."""

import shutil
from pathlib import Path

import pytest

from ssd1b import tracking


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("empty-store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSD1B_HOME", str(root))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking.connect()
    return root / "mlflow.db"


@pytest.fixture
def home(home: Path, empty_store: Path) -> Path:
    shutil.copy(empty_store, home / "mlflow.db")
    return home
