"""A document and its pictures for the tests of a page."""

from pathlib import Path

import pytest
from evaluations import Json, evaluation, keep_pictures


@pytest.fixture
def told() -> Json:
    return evaluation()


@pytest.fixture
def folder(told: Json, tmp_path: Path) -> Path:
    """A folder with the pictures of the document."""
    keep_pictures(told, tmp_path, 64)
    return tmp_path
