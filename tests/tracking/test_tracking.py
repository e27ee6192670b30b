"""MLflow on SQLite, for real: runs, versions, aliases, downloads, from several processes."""

import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow.entities import RunStatus
from PIL import Image

from ssd1b import tracking


def stored(folder: Path, text: str = "weights") -> Path:
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "config.json").write_text(text)
    return folder


def status_of(run_id: str) -> str:
    return str(tracking.connect().get_run(run_id).info.status)


@dataclass(frozen=True)
class Optim:
    lr: float = 0.1


@dataclass(frozen=True)
class Config:
    name: str = "x"
    styles: tuple[str, ...] = ("flat", "retro")
    stages: tuple[Optim, ...] = (Optim(), Optim(0.2))


def test_a_run_keeps_what_it_is_given(home: Path, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("hi")
    with tracking.run("distill", "first", tags={"kind": "test"}) as run:
        run.params(Config())
        run.metrics({"loss": 2.0, "task": 1.5}, step=1)
        run.metrics({"loss": 1.0}, step=2)
        run.artifact(note, "notes")
        run.text("{}", "config.json")
        run.picture(Image.new("RGB", (4, 4)), "sheets/one.png")
    client = tracking.connect()
    kept = client.get_run(run.run_id)
    assert kept.data.params == {
        "name": "x", "styles": "('flat', 'retro')", "stages.0.lr": "0.1", "stages.1.lr": "0.2",
    }  # fmt: skip
    assert [(point.step, point.value) for point in client.get_metric_history(run.run_id, "loss")] == [
        (1, 2.0),
        (2, 1.0),
    ]
    assert kept.data.tags["kind"] == "test"
    assert kept.info.status == "FINISHED"
    root = Path(kept.info.artifact_uri.removeprefix("file://"))
    assert root.is_relative_to(home / "mlartifacts")
    assert {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} == {
        "notes/note.txt", "config.json", "sheets/one.png",
    }  # fmt: skip


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
@pytest.mark.usefixtures("home")
def test_a_run_that_breaks_off_says_so(error: type[BaseException], status: str) -> None:
    def broken() -> None:
        with tracking.run("distill", "first") as run:
            opened.append(run.run_id)
            raise error

    opened: list[str] = []
    with pytest.raises(error):
        broken()
    assert status_of(opened[0]) == status


@pytest.mark.usefixtures("home")
def test_a_run_is_resumed_and_nested() -> None:
    with tracking.run("distill", "outer") as outer, tracking.run("distill", "inner", parent=outer.run_id) as inner:
        inner.metrics({"loss": 2.0}, step=1)
    with tracking.run("distill", "inner", resume=inner.run_id) as again:
        assert again.run_id == inner.run_id
        assert status_of(inner.run_id) == RunStatus.to_string(RunStatus.RUNNING)
        again.metrics({"loss": 1.0}, step=2)
    client = tracking.connect()
    assert client.get_run(inner.run_id).data.tags["mlflow.parentRunId"] == outer.run_id
    assert [point.step for point in client.get_metric_history(inner.run_id, "loss")] == [1, 2]
    with pytest.raises(ValueError, match=r"no run 123 in .* to resume"), tracking.run("distill", "x", resume="123"):
        pass


@pytest.mark.usefixtures("home")
def test_versions_aliases_and_downloads(tmp_path: Path) -> None:
    with tracking.run("distill", "first") as run:
        first = tracking.register("nano", stored(tmp_path / "a", "one"), run_id=run.run_id, alias="candidate")
    second = tracking.register("nano", stored(tmp_path / "b", "two"), tags={"kind": "student"})
    assert (first, second) == ("1", "2")
    version = tracking.version_of("nano", "candidate")
    assert (version.uri, version.run_id) == ("models:/nano/1", run.run_id)
    assert (tracking.download("models:/nano@candidate") / "unet/config.json").read_text() == "one"
    tracking.set_alias("nano", "candidate", second)
    folder = tracking.download("models:/nano@candidate")
    assert (folder / "unet/config.json").read_text() == "two"
    assert [path.name for path in folder.parent.iterdir() if ".tmp-" in path.name] == []
    tracking.tag("nano", "2", "bundle", "models:/nano-bundle/1")
    assert tracking.find("models:/nano/2").tags == {"kind": "student", "bundle": "models:/nano-bundle/1"}


@pytest.mark.usefixtures("home")
def test_a_download_is_made_once_and_is_not_confused_by_a_new_registry(tmp_path: Path) -> None:
    tracking.register("nano", stored(tmp_path / "a", "one"))
    folder = tracking.download("models:/nano/1")
    mark = folder / "mark"
    mark.write_text("")
    assert tracking.download("models:/nano/1") == folder
    assert mark.exists(), "it was downloaded again"
    assert tracking.find("models:/nano/1").model_id in folder.name


@pytest.mark.usefixtures("home")
def test_versions_are_found_by_tags(tmp_path: Path) -> None:
    folder = stored(tmp_path / "a")
    tags = {"kind": "lora", "base": "ssd1b-nano"}
    tracking.register("ssd1b-nano-lora-ink", folder, tags=tags | {"lora": "ink"})
    tracking.register("ssd1b-nano-lora-ink", folder, tags=tags | {"lora": "ink"})
    tracking.register("ssd1b-nano-lora-chalk", folder, tags=tags | {"lora": "it's"})
    tracking.register("other-lora-x", folder, tags=tags | {"base": "other"})
    found = tracking.versions(tags)
    assert [(each.name, each.version) for each in found] == [
        ("ssd1b-nano-lora-chalk", "1"), ("ssd1b-nano-lora-ink", "2"), ("ssd1b-nano-lora-ink", "1"),
    ]  # fmt: skip
    assert [each.name for each in tracking.versions({"lora": "it's"})] == ["ssd1b-nano-lora-chalk"]
    assert tracking.versions({"kind": "none"}) == []


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/ssd1b-nano@candidate", r"python -m jobs\.distill"),
        ("models:/ssd1b-nano@champion", r"python -m jobs\.promote"),
        ("models:/ssd1b-nano/7", r"python -m jobs\.distill"),
        ("models:/ssd1b-nano-lora-ink@champion", r"python -m jobs\.lora ink"),
        ("models:/ssd1b-nano-bundle/1", r"python -m jobs\.export"),
        ("models:/ssd1b-nano", r"is not a registry uri"),
        ("somewhere", r"is not a registry uri"),
    ],
)
@pytest.mark.usefixtures("home")
def test_what_is_not_there_says_which_job_makes_it(uri: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tracking.download(uri)


@pytest.mark.usefixtures("home")
def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no folder .* to register"):
        tracking.register("nano", tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no models:/nano/1"):
        tracking.set_alias("nano", "champion", "1")


def test_a_store_that_does_not_answer_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = home / "broken.db"
    broken.write_text("this is no database, and longer than the header of one would have to be " * 10)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{broken}")
    with pytest.raises(ValueError, match=r"no MLflow store answers at .*broken\.db"):
        tracking.connect()


def log_and_register(task: tuple[int, str]) -> str:
    number, folder = task
    with tracking.run("shared", f"run {number}") as run:
        for step in range(5):
            run.metrics({"loss": float(step)}, step)
        return tracking.register("shared", Path(folder), run_id=run.run_id, alias="newest")


def test_several_processes_open_a_fresh_store_at_once(home: Path, tmp_path: Path) -> None:
    (home / "mlflow.db").unlink()
    folder = stored(tmp_path / "a")
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        made = pool.map(log_and_register, [(i, str(folder)) for i in range(3)], chunksize=1)
    assert sorted(made) == ["1", "2", "3"]
    assert tracking.version_of("shared", "newest").version in made
