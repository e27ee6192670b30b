"""The evaluate job, whole, on the shipped nano family and a real registry."""

import json
from pathlib import Path

import pytest

from jobs import evaluate
from ssd1b import tracking
from ssd1b.evaluation.gates import decide, refuse_unlike_conditions
from ssd1b.evaluation.seen import read_conditions
from ssd1b.models.files import NANO
from ssd1b.recipes.evaluate import RECIPES
from ssd1b.recipes.promote import Thresholds


def test_a_copy_of_the_teacher_is_measured_as_equal_and_recorded(home: Path) -> None:
    tracking.register("ssd1b-nano", NANO, alias="candidate")
    result = evaluate.run(RECIPES["debug"]())
    assert result["model"] == "models:/ssd1b-nano/1"
    assert result["distance_paired"] == pytest.approx(0, abs=1e-4)
    assert result["pixels_ratio"] == pytest.approx(0, abs=1e-4)
    assert result["distance_unrelated"] > 0
    assert result["heldout_score_student"] == pytest.approx(result["heldout_score_teacher"], abs=1e-4)
    assert result["parameters_ratio"] == 1

    version = tracking.version_of("ssd1b-nano", "candidate")
    recorded = json.loads(version.tags["evaluation"])
    refuse_unlike_conditions(read_conditions(version.tags["evaluation_conditions"]), "nano")
    gates = {gate.name: gate.passes for gate in decide(recorded, Thresholds(prompts="all"))}
    assert gates["parameters_ratio"] is False
    assert gates["distance_ratio"] is True
    run = tracking.connect().get_run(version.tags["evaluation_run"])
    assert run.data.metrics["parameters_ratio"] == 1
    assert run.data.params["teacher"] == "nano"
    assert [path.name for path in (home / "mlartifacts").rglob("contact_sheet.png")] == ["contact_sheet.png"]

    (path,) = (home / "mlartifacts").rglob("evaluation.json")
    told = json.loads(path.read_text())
    assert told["conditions"]["teacher"] == told["conditions"]["student"]
    assert told["conditions"]["student"]["seeds"] == [0, 5]
    assert told["extractors"]["scorer"]["name"] == "nano"
    assert len(told["extractors"]["features"]["sha256"]) == 64
    assert {group["by"] for group in told["groups"]} == {"novelty", "style", "category"}
    assert told["numbers"]["cmmd_nano_student_to_teacher"] == pytest.approx(0, abs=1e-4)
    assert {each["name"] for each in told["distances"]["student"]} == {"FD-efflite0", "KID-efflite0", "CMMD-nano"}
    assert "rank-deficient" in told["distances"]["student"][0]["warning"]
    assert {each["what"] for each in told["adherence"]} == {"style", "background"}
    assert {leak["probe"] for leak in told["leaks"]} == {"blue background"}
    assert len(told["prompts"]) == 8
    for prompt in told["prompts"]:
        assert all((path.parent / picture).is_file() for picture in prompt["pictures"].values())
        assert set(prompt["pictures"]) == {"teacher", "student", *([] if prompt["probe"] else ["drawing"])}

    page = Path(result["report"])
    assert page == path.parent / "report.html"
    assert page.read_text().count("<img") >= 6 * 3 * 2
    assert "registered by hand; no run in MLflow made it" in page.read_text()


@pytest.mark.usefixtures("home")
def test_nothing_to_evaluate_says_which_job_makes_it() -> None:
    with pytest.raises(ValueError, match=r"python -m jobs\.distill"):
        evaluate.run(RECIPES["debug"]())
