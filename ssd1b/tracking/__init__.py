"""MLflow behind a few verbs: runs, registered models, aliases.

Without a server everything is kept under the storage root: a SQLite file, artifacts in `mlartifacts/`, and downloads
in `downloads/`, one folder per registered version. With MLFLOW_TRACKING_URI set to a server, the server decides.
Safe to use from several processes and threads at once.
"""

import dataclasses
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # MLflow's seven take minutes to say "no server"

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Metric, Param
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from PIL.Image import Image

from ssd1b.home import home, tracking_uri
from ssd1b.tracking.store import PASSING, connect

PARAMS_PER_BATCH = 100
"""MLflow's limit."""
REPLACED = "replaced"
"""Tag of a version that an alias was moved to: the version it was moved from, empty where there was none."""
MODELS_EXPERIMENT = "models"
"""Where models that no run made are filed."""
DESCRIPTION = 5000
"""Characters of a version's description that MLflow's tables have room for."""
CUT = "\n\n(cut here; the whole card is the model's README.md)"


@dataclass(frozen=True, kw_only=True)
class Version:
    """One registered version of a model."""

    name: str
    version: str
    uri: str
    """models:/name/version"""
    run_id: str | None
    """The run that made it."""
    tags: Mapping[str, str]
    model_id: str
    """MLflow's id of the logged model, unlike the version number never given twice."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that is open for logging."""

    run_id: str
    client: MlflowClient

    def params(self, params: Any) -> None:
        """Log a mapping or a config dataclass; nested fields get the dotted keys that `--set` takes."""
        flat = [Param(key, str(value)) for key, value in flatten(params)]
        for i in range(0, len(flat), PARAMS_PER_BATCH):
            self.client.log_batch(self.run_id, params=flat[i : i + PARAMS_PER_BATCH])

    def metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        now_ms = int(time.time() * 1000)
        self.client.log_batch(self.run_id, [Metric(key, float(value), now_ms, step) for key, value in metrics.items()])

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keep a file, or a folder's content, under the artifact folder."""
        log = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        log(self.run_id, str(path), folder or None)

    def text(self, text: str, file: str) -> None:
        self.client.log_text(self.run_id, text, file)

    def picture(self, picture: Image, file: str) -> None:
        """Keep a picture; the ending of `file` chooses the format."""
        self.client.log_image(self.run_id, picture, artifact_file=file)

    def model(self, name: str, folder: Path, *, kind: str, tags: Mapping[str, str]) -> str:
        """Keep a folder's content as a logged model of this run and return MLflow's id of it."""
        experiment = self.client.get_run(self.run_id).info.experiment_id
        return store(self.client, experiment, name, folder, self.run_id, tags, kind)

    def end(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED."""
        self.client.set_terminated(self.run_id, status)


@contextmanager
def run(
    experiment: str,
    name: str,
    *,
    parent: str | None = None,
    resume: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[Run]:
    """Open a run, or go on with the run id `resume`; it ends FINISHED, KILLED on an interrupt, or FAILED on an error.

    Raises:
        ValueError: the run to resume does not exist.
    """
    if resume:
        opened = again(resume)
        for key, value in (tags or {}).items():
            opened.client.set_tag(resume, key, value)
    else:
        opened = begin(experiment, name, parent=parent, tags=tags)
    status = "FAILED"
    try:
        yield opened
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        opened.end(status)


def begin(experiment: str, name: str, *, parent: str | None = None, tags: Mapping[str, str] | None = None) -> Run:
    """Start a run that someone will end."""
    client = connect()
    told = {**(tags or {}), **({"mlflow.parentRunId": parent} if parent else {})}
    info = client.create_run(experiment_id(client, experiment), tags=told, run_name=name).info
    return Run(run_id=info.run_id, client=client)


def again(run_id: str) -> Run:
    """Open a run that was begun before.

    Raises:
        ValueError: there is none.
    """
    client = connect()
    try:
        client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in PASSING:
            raise
        raise ValueError(f"no run {run_id} in {tracking_uri()} to resume: leave `resume` out to start one") from error
    client.update_run(run_id, status="RUNNING")
    return Run(run_id=run_id, client=client)


def register(
    name: str,
    folder: Path,
    *,
    run_id: str | None = None,
    alias: str | None = None,
    tags: Mapping[str, str] | None = None,
    model_id: str | None = None,
) -> str:
    """Store a folder as a logged model, register it as the next version of `name`, and return the version.

    model_id: the logged model that has the folder's content already. The folder's model card becomes the version's
    description. The alias moves last, so whoever follows it never sees a half-stored model.
    """
    if not folder.is_dir():
        raise ValueError(f"no folder {folder} to register as {name}")
    client = connect()
    if model_id is None:
        experiment = client.get_run(run_id).info.experiment_id if run_id else experiment_id(client, MODELS_EXPERIMENT)
        model_id = store(client, experiment, name, folder, run_id, tags or {})
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = client.create_model_version(
        name, f"models:/{model_id}", run_id=run_id, tags=dict(tags or {}), model_id=model_id
    )
    card = folder / "README.md"
    if card.exists():
        describe(name, str(made.version), card.read_text())
    if alias:
        client.set_registered_model_alias(name, alias, made.version)
    return str(made.version)


def store(
    client: MlflowClient,
    experiment: str,
    name: str,
    folder: Path,
    run_id: str | None,
    tags: Any,
    kind: str | None = None,
) -> str:
    """Store a folder's content as a logged model and return MLflow's id of it."""
    made = client.create_logged_model(experiment, name, source_run_id=run_id, tags=dict(tags), model_type=kind)
    client.log_model_artifacts(made.model_id, str(folder))
    return str(client.finalize_logged_model(made.model_id, "READY").model_id)


def set_alias(name: str, alias: str, version: str) -> None:
    """Move an alias; serving follows `champion`."""
    find(f"models:/{name}/{version}")
    connect().set_registered_model_alias(name, alias, version)


def crown(name: str, alias: str, version: str) -> None:
    """Move an alias, and note on the version the one that it replaces: the way back."""
    try:
        was = version_of(name, alias).version
    except ValueError:
        was = ""
    if was != version:
        tag(name, version, REPLACED, was)
        set_alias(name, alias, version)


def drop_alias(name: str, alias: str) -> None:
    """Remove an alias; none there is none to remove."""
    connect().delete_registered_model_alias(name, alias)


def tag(name: str, version: str, key: str, value: str) -> None:
    """Set one tag of a version."""
    find(f"models:/{name}/{version}")
    connect().set_model_version_tag(name, version, key, value)


def describe(name: str, version: str, card: str) -> None:
    """Make a model card, Markdown, the description of a version; what the store has no room for is left out."""
    text = card.split("---\n", 2)[-1].strip() if card.startswith("---\n") else card
    if len(text) > DESCRIPTION:
        room = text[: DESCRIPTION - len(CUT)]
        text = room[: room.rfind("\n")] + CUT
    connect().update_model_version(name, version, text)


def version_of(name: str, alias: str) -> Version:
    """Return the version an alias points at.

    Raises:
        ValueError: no such model or alias; the message says which job makes it.
    """
    return find(f"models:/{name}@{alias}")


def versions(tags: Mapping[str, str]) -> list[Version]:
    """Return every registered version that carries all the tags, newest first within a model, models by name."""
    # picked here, not in MLflow's filter language, which has no way to write a value that holds a quote
    found: list[ModelVersion] = []
    token: str | None = None
    while token is None or token:
        page = connect().search_model_versions(page_token=token)
        found, token = [*found, *page], page.token or ""
    picked = [each for each in map(version_from, found) if tags.items() <= each.tags.items()]
    return sorted(picked, key=lambda each: (each.name, -int(each.version)))


def find(uri: str) -> Version:
    """Return the version that "models:/name@alias" or "models:/name/3" points at.

    Raises:
        ValueError: not such a uri, or no such model; the message says which job makes it.
    """
    match = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", uri)
    if not match:
        raise ValueError(f"{uri!r} is not a registry uri: write models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, number = match.groups()
    try:
        if alias:
            return version_from(connect().get_model_version_by_alias(name, alias))
        return version_from(connect().get_model_version(name, number))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ValueError(f"no {uri} in the registry at {tracking_uri()}: {maker(name, alias)} makes it") from error


def download(uri: str) -> Path:
    """Return a local folder with the files of a registered version, from `downloads/` where it is already there."""
    version = find(uri)
    folder = home() / "downloads" / version.name / f"{version.version}-{version.model_id}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent))
    aside.chmod(0o755)
    try:
        download_artifacts(artifact_uri=f"models:/{version.model_id}", dst_path=str(aside))
        aside.rename(folder)
    except OSError:
        if not folder.exists():  # else another process was first, with the same files
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def version_from(entity: ModelVersion) -> Version:
    return Version(
        name=entity.name,
        version=str(entity.version),
        uri=f"models:/{entity.name}/{entity.version}",
        run_id=entity.run_id or None,
        tags=dict(entity.tags),
        model_id=entity.source.removeprefix("models:/"),
    )


def maker(name: str, alias: str | None) -> str:
    """Return the job that makes a model of that name and alias."""
    if "-lora-" in name:
        return f"`python -m jobs.lora {name.rpartition('-lora-')[2]}`"
    if name.endswith("-bundle"):
        return "`python -m jobs.export`"
    return "`python -m jobs.promote`" if alias == "champion" else "`python -m jobs.distill`"


def experiment_id(client: MlflowClient, name: str) -> str:
    """Return the experiment's id, made on first use; without a server its artifacts lie under the storage root."""
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    place = (home() / "mlartifacts" / name).as_uri() if tracking_uri().startswith("sqlite:") else None
    try:
        return str(client.create_experiment(name, artifact_location=place))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was first
            raise
    return str(client.get_experiment_by_name(name).experiment_id)


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, leaf) of nested dataclasses, mappings and sequences of them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    nested = isinstance(value, list | tuple) and any(dataclasses.is_dataclass(item) for item in value)
    items = enumerate(value) if nested else value.items() if isinstance(value, Mapping) else None
    if items is None:
        yield prefix, value
        return
    for key, item in items:
        yield from flatten(item, f"{prefix}.{key}" if prefix else str(key))
