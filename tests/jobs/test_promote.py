"""Promotion against a real registry: a good student becomes champion, a worse one does not."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from jobs import promote
from ssd1b import tracking
from ssd1b.evaluation.seen import Conditions
from ssd1b.recipes.promote import Promote, Thresholds

CONFIG = Promote(name="toy", thresholds=Thresholds())
GOOD = {
    "heldout_score_kept": 1.0, "heldout_score_kept_low": 0.97, "heldout_score_kept_high": 1.03,
    "heldout_prompts": 300, "parameters_ratio": 0.51, "step_speedup": 1.7, "distance_ratio": 0.4,
}  # fmt: skip
MEASURED = Conditions(
    prompts=300, prompts_sha256="a" * 64, seeds=(0, 299), sampler="euler", steps=20, guidance=8.0, negative=None,
    side_px=1024, scorer="clip/image-text/512/abc", features="inception/pictures/2048/def",
)  # fmt: skip


def candidate(folder: Path, evaluation: dict[str, float] | None, student: Conditions = MEASURED) -> str:
    folder.mkdir(exist_ok=True)
    conditions = json.dumps({"teacher": asdict(MEASURED), "student": asdict(student)})
    tags = {"evaluation": json.dumps(evaluation), "evaluation_conditions": conditions} if evaluation else {}
    return tracking.register("toy", folder, alias="candidate", tags=tags)


@pytest.mark.usefixtures("home")
def test_a_worse_model_does_not_replace_the_champion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = candidate(tmp_path / "m", GOOD)
    assert promote.run(CONFIG)["promoted"]
    assert tracking.version_of("toy", "champion").version == first

    candidate(tmp_path / "m", {**GOOD, "heldout_score_kept": 0.9, "step_speedup": 1.1})
    refused = promote.run(CONFIG)
    assert not refused["promoted"]
    assert [name for name, gate in refused["gates"].items() if not gate["passes"]] == ["score_kept", "step_speedup"]
    assert refused["failed"][0].startswith("score_kept fails by 0.07")
    assert tracking.version_of("toy", "champion").version == first
    assert "step_speedup fails by 0.4" in capsys.readouterr().out


@pytest.mark.usefixtures("home")
def test_a_version_that_was_never_evaluated_is_refused(tmp_path: Path) -> None:
    candidate(tmp_path / "m", None)
    with pytest.raises(ValueError, match=r"models:/toy/1 was never evaluated: run `python -m jobs\.evaluate`"):
        promote.run(CONFIG)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("student", "message"),
    [
        (replace(MEASURED, scorer="nano/image-text/256/abc"), "under unlike scorer"),
        (replace(MEASURED, prompts_sha256="b" * 64), "under unlike prompts_sha256"),
    ],
)
def test_a_candidate_measured_otherwise_than_its_teacher_is_refused(
    tmp_path: Path, student: Conditions, message: str
) -> None:
    candidate(tmp_path / "m", GOOD, student)
    with pytest.raises(ValueError, match=message):
        promote.run(CONFIG)
    with pytest.raises(ValueError, match="toy@champion"):
        tracking.version_of("toy", "champion")


@pytest.mark.usefixtures("home")
def test_thresholds_chosen_for_another_scorer_are_not_applied(tmp_path: Path) -> None:
    candidate(tmp_path / "m", GOOD)
    with pytest.raises(ValueError, match="the thresholds are for 'nano'"):
        promote.run(replace(CONFIG, scorer="nano"))


@pytest.mark.usefixtures("home")
def test_a_refusal_prints_its_json_and_stops_a_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    candidate(tmp_path / "m", {**GOOD, "distance_ratio": 0.9})
    monkeypatch.setattr(promote, "RECIPES", {"toy": lambda: CONFIG})
    monkeypatch.setattr("sys.argv", ["promote", "toy"])
    with pytest.raises(SystemExit) as ended:
        promote.command()
    assert ended.value.code == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["promoted"] is False
    assert last["failed"] == ["distance_ratio fails by 0.15: 0.9, must be at most 0.75"]
