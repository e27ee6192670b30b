"""What a page needs from MLflow and leaves there: the curves of the training run, an evaluation's files, the page."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlparse

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from ssd1b import tracking
from ssd1b.models import lineage
from ssd1b.models.lineage import Lineage
from ssd1b.report import curves, document
from ssd1b.report.choice import choose
from ssd1b.report.curves import NAMES, Curve, Point, Stage, Training
from ssd1b.report.document import Document
from ssd1b.report.evidence import Evidence
from ssd1b.report.page import render
from ssd1b.report.thumbs import within
from ssd1b.tracking.store import connect

FILE = "report.html"
MOST_STAGES = 100


def training_of(model: str) -> Training:
    """Return the curves of the run that made a registered version: those of its stages, or its own.

    Where there are none the answer says why.
    """
    try:
        version = tracking.find(model)
    except ValueError as error:
        return Training(absent=f"No curves: {error}.")
    if version.run_id is None:
        return Training(absent=f"No curves: {version.uri} was registered by hand; no run in MLflow made it.")
    client = connect()
    try:
        run = client.get_run(version.run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return Training(absent=f"No curves: MLflow no longer has the run {version.run_id}, which made {version.uri}.")
    children = client.search_runs(
        [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{version.run_id}'", max_results=MOST_STAGES,
        order_by=["attributes.start_time ASC"],
    )  # fmt: skip
    named = {each.data.tags.get("stage", each.info.run_name): each.info.run_id for each in children}
    found = [stage_of(name, run_id) for name, run_id in (named or {"the whole run": version.run_id}).items()]
    stages = tuple(stage for stage in found if stage.curves)
    absent = "" if stages else f"No curves: the run {version.run_id}, which made {version.uri}, logged no loss."
    return Training(run=version.run_id, stages=stages, absent=absent)


def stage_of(name: str, run_id: str) -> Stage:
    """Return the losses that one run logged."""
    client = connect()
    held = {
        told: [Point(step=each.step, value=each.value) for each in client.get_metric_history(run_id, metric)]
        for metric, told in NAMES.items()
    }
    return Stage(name=name, curves=tuple(Curve(name=told, points=tuple(held[told])) for told in held if held[told]))


def evidence(told: Mapping[str, Any], folder: Path, story: Lineage | None) -> Evidence:
    """Return what the page of an evaluation that was just made is drawn from; told is its document."""
    read = document.parse(told)
    return Evidence(document=read, folder=folder, lineage=story, training=training_of(read.model))


def keep(tracked: tracking.Run, of: Evidence) -> str:
    """Draw the page and keep it in an evaluation's run, with what it was drawn from; return where it is."""
    tracked.text(json.dumps(asdict(of.training)), curves.FILE)
    if of.lineage:
        tracked.text(json.dumps(asdict(of.lineage), indent=1), lineage.FILE)
    tracked.text(render(of), FILE)
    return place(tracked, FILE)


def place(tracked: tracking.Run, file: str) -> str:
    """Return where an artifact of a run is: a path where the store is a folder here, else its address."""
    address = f"{tracked.client.get_run(tracked.run_id).info.artifact_uri}/{file}"
    parsed = urlparse(address)
    return unquote(parsed.path) if parsed.scheme == "file" else address


def fetch_pictures(client: MlflowClient, run_id: str, read: Document, folder: Path) -> None:
    """Put the pictures that a page shows into the folder, those that the run kept, where the document says they lie."""
    wanted = [path for i in choose(read.prompts).pictures_of for path in read.prompts[i].pictures.values()]
    rooms = {str(PurePosixPath(path).parent) for path in wanted}
    kept = {each.path for room in rooms for each in client.list_artifacts(run_id, room)}
    for path in dict.fromkeys(wanted):
        if path in kept:
            place = within(folder, path).parent
            place.mkdir(parents=True, exist_ok=True)
            client.download_artifacts(run_id, path, str(place))


@contextmanager
def fetched(run_id: str) -> Iterator[tuple[tracking.Run, Path]]:
    """Yield an evaluation's run and, for as long, a folder with those of its files that a page is drawn from.

    Of the pictures only those that the page shows are fetched.

    Raises:
        ValueError: no such run, or one that is no evaluation.
    """
    client = connect()
    try:
        kept = {each.path for each in client.list_artifacts(run_id)}
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ValueError(f"no run {run_id} in MLflow, and no folder of that name: `python -m jobs.evaluate` prints "
                         "the id of its run") from error  # fmt: skip
    if document.FILE not in kept:
        raise ValueError(f"the run {run_id} holds no {document.FILE}: give the id of a run of jobs.evaluate")
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside)
        for file in (document.FILE, lineage.FILE, curves.FILE):
            if file in kept:
                client.download_artifacts(run_id, file, aside)
        read = document.read(folder)
        fetch_pictures(client, run_id, read, folder)
        if curves.FILE not in kept:
            curves.write(training_of(read.model), folder)
        yield tracking.Run(run_id=run_id, client=client), folder
