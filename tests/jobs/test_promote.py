"""Promotion against a real registry: a good student becomes champion, a worse one does not."""

import json
from pathlib import Path

import pytest

from jobs import promote
from ssd1b import tracking
from ssd1b.recipes.promote import Promote, Thresholds

CONFIG = Promote(
    name="toy", thresholds=Thresholds(score_kept=0.97, parameters_ratio=0.6, step_speedup=1.3, distance_ratio=0.75)
)
GOOD = {"score_kept": 1.0, "parameters_ratio": 0.58, "step_speedup": 1.7, "distance_ratio": 0.4}


def candidate(folder: Path, evaluation: dict[str, float] | None) -> str:
    folder.mkdir(exist_ok=True)
    tags = {"evaluation": json.dumps(evaluation)} if evaluation else {}
    return tracking.register("toy", folder, alias="candidate", tags=tags)


@pytest.mark.usefixtures("home")
def test_a_worse_model_does_not_replace_the_champion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = candidate(tmp_path / "m", GOOD)
    assert promote.run(CONFIG)["promoted"]
    assert tracking.version_of("toy", "champion").version == first

    candidate(tmp_path / "m", {**GOOD, "score_kept": 0.9, "step_speedup": 1.1})
    refused = promote.run(CONFIG)
    assert not refused["promoted"]
    assert [name for name, gate in refused["gates"].items() if not gate["passes"]] == ["score_kept", "step_speedup"]
    assert refused["failed"][0].startswith("score_kept fails by 0.07")
    assert tracking.version_of("toy", "champion").version == first
    assert "step_speedup fails by 0.2" in capsys.readouterr().out


@pytest.mark.usefixtures("home")
def test_a_version_that_was_never_evaluated_is_refused(tmp_path: Path) -> None:
    candidate(tmp_path / "m", None)
    with pytest.raises(ValueError, match=r"models:/toy/1 was never evaluated: run `python -m jobs\.evaluate`"):
        promote.run(CONFIG)


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
