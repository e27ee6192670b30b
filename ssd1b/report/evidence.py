"""Everything that one page is drawn from."""

from dataclasses import dataclass
from pathlib import Path

from ssd1b.models import lineage
from ssd1b.models.lineage import Lineage
from ssd1b.report import curves, document
from ssd1b.report.curves import NOT_KEPT, Training
from ssd1b.report.document import Document


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """An evaluation, its pictures, and the story of its student."""

    document: Document
    folder: Path
    """Which the document's paths of pictures start from."""
    lineage: Lineage | None = None
    training: Training = NOT_KEPT


def read(folder: Path) -> Evidence:
    """Return what a folder holds: evaluation.json, and beside it pictures/, lineage.json and curves.json or not.

    Raises:
        ValueError: it has no evaluation.json, or one of the files cannot be read.
    """
    return Evidence(
        document=document.read(folder), folder=folder, lineage=lineage.read(folder), training=curves.read(folder)
    )
