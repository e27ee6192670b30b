"""The page of a run in MLflow, and of a folder: drawn, kept, drawn again."""

import json
import shutil
from pathlib import Path

import pytest
from evaluations import Json, evaluation, keep_pictures
from mlflow.entities import Metric

from jobs import report
from ssd1b import tracking
from ssd1b.report import runs
from ssd1b.report.choice import PER_PROBE


@pytest.fixture
def home(home: Path, empty_store: Path) -> Path:
    shutil.copy(empty_store, home / "mlflow.db")
    return home


def logged(run: tracking.Run, name: str, values: list[float]) -> None:
    run.client.log_batch(run.run_id, [Metric(name, value, 0, i) for i, value in enumerate(values)])


@pytest.fixture
def trained(home: Path) -> str:
    """The uri of a version that a distillation of two stages made."""
    (home / "student").mkdir()
    (home / "student" / "weights").write_text("x")
    with tracking.run("distill", "whole") as whole:
        for stage in ("warm", "cold"):
            with tracking.run("distill", stage, parent=whole.run_id, tags={"stage": stage}) as child:
                logged(child, "loss", [3.0, 2.0, 1.0])
        version = tracking.register("ssd1b-nano", home / "student", run_id=whole.run_id)
    return f"models:/ssd1b-nano/{version}"


def test_the_curves_are_those_of_the_run_that_made_the_version(trained: str) -> None:
    found = runs.training_of(trained)
    assert [stage.name for stage in found.stages] == ["warm", "cold"]
    assert [point.value for point in found.stages[0].curves[0].points] == [3.0, 2.0, 1.0]
    assert found.absent == ""


@pytest.mark.usefixtures("home")
def test_where_there_are_no_curves_the_reason_is_told(home: Path) -> None:
    assert "no models:/nobody/1 in the registry" in runs.training_of("models:/nobody/1").absent
    assert "is not a registry uri" in runs.training_of("a/folder").absent
    (home / "student").mkdir()
    tracking.register("by-hand", home / "student")
    assert "registered by hand" in runs.training_of("models:/by-hand/1").absent
    with tracking.run("distill", "silent") as silent:
        tracking.register("silent", home / "student", run_id=silent.run_id)
    assert "logged no loss" in runs.training_of("models:/silent/1").absent


def test_a_run_from_before_there_were_pages_gets_one(home: Path, trained: str, tmp_path: Path) -> None:
    told: Json = {**evaluation(), "model": trained}
    aside = tmp_path / "aside"
    keep_pictures(told, aside, 32)
    with tracking.run("evaluate", "old") as tracked:
        tracked.text(json.dumps(told), "evaluation.json")
        tracked.artifact(aside)
    result = report.run(tracked.run_id)
    page = Path(result["report"])
    assert page.is_relative_to(home / "mlartifacts")
    first = page.read_text()
    assert first.count("<polyline") == 2
    assert first.count("<img") >= 3 * (5 + 5) + 4 * min(1, PER_PROBE)
    assert (page.parent / "curves.json").is_file()
    assert report.run(tracked.run_id) == result
    assert page.read_text() == first


def test_a_folder_is_drawn_where_it_lies(folder: Path, told: Json) -> None:
    (folder / "evaluation.json").write_text(json.dumps(told))
    result = report.run(str(folder))
    assert result["report"] == str(folder / "report.html")
    assert "nano+poster" in (folder / "report.html").read_text()


@pytest.mark.usefixtures("home")
def test_what_is_no_evaluation_is_refused_with_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"evaluation\.json does not exist: give the id of a run"):
        report.run(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="and no folder of that name"):
        report.run("0" * 32)
    with tracking.run("distill", "another") as tracked:
        tracked.text("x", "y.txt")
    with pytest.raises(ValueError, match=r"holds no evaluation\.json"):
        report.run(tracked.run_id)
