"""jobs.carve from end to end: a student on disk that says where it comes from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import jobs.carve
import jobs.convert
import jobs.describe
from ssd1b.family.carve import carve, keep_map, parameters
from ssd1b.family.keep import read_keep_map
from ssd1b.models import lineage
from ssd1b.models.files import load_pipeline, load_unet
from ssd1b.pruning.carving import KEEP_MAP, SENSITIVITY, Carving, run


def nowhere(uri: str) -> Path:
    raise AssertionError(f"{uri} is no registry uri")


@pytest.fixture
def vega(home: Path) -> str:
    """A small teacher: 15 transformer blocks."""
    run(Carving(teacher="nano", student="segmind-vega", name="vega"), nowhere)
    return str(home / "carved" / "vega")


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_declared_student_is_kept_whole_with_its_lineage(home: Path) -> None:
    done = run(Carving(teacher="nano+retro", student="ssd-1b", name="half"), nowhere)
    folder = Path(done["folder"])
    assert folder == home / "carved" / "half"
    assert (done["parameters"], done["teacher_parameters"]) == (4_672_516, 8_046_532)
    teacher = load_unet("nano+retro")
    assert same(load_pipeline(str(folder)).unet, carve(teacher, keep_map(teacher.config, "ssd-1b")))
    assert read_keep_map(folder / KEEP_MAP) == keep_map(teacher.config, "ssd-1b")
    told = lineage.read(folder)
    assert told is not None
    assert (told.base, told.chosen, told.licence) == ("nano+retro", "declared for ssd-1b", "apache-2.0")
    assert "4,672,516 parameters, 58.1% of the 8,046,532" in (folder / lineage.CARD).read_text()


def test_a_budget_is_met_by_leaving_out_what_is_missed_least(vega: str, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(Carving(teacher=vega, params=2_700_000, pictures=4, name="lean"), nowhere)
    folder = Path(done["folder"])
    assert done["parameters"] <= 2_700_000
    teacher, student = load_unet(vega), load_unet(str(folder))
    kept = read_keep_map(folder / KEEP_MAP)
    assert same(student, carve(teacher, kept))
    assert parameters(student) == done["parameters"]
    measured = json.loads((folder / SENSITIVITY).read_text())
    gone = {name: each for name, each in measured["pieces"].items() if each["removed"]}
    assert gone
    assert sum(each["error"] for each in gone.values()) == pytest.approx(measured["sum"])
    assert sum(each["parameters"] for each in gone.values()) == parameters(teacher) - parameters(student)
    row = next(row for row in done["maps"] if row["map"] == "measured")
    assert 0 < row["error"] < 1
    assert "for at most 2,700,000 parameters" in (folder / lineage.CARD).read_text()
    printed = capsys.readouterr().out
    assert "least missed" in printed
    assert "before any training" in printed
    again = run(Carving(teacher=vega, params=2_700_000, pictures=4, name="again"), nowhere)
    assert read_keep_map(Path(again["keep_map"])) == kept, "the choice depends on more than its inputs"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, r"give a student \(--to ssd-1b\) or a budget"),
        ({"student": "ssd-1b", "params": 10}, "one of the two"),
        ({"params": 9_000_000}, "the teacher has 8,046,532 parameters, no more than --params 9,000,000"),
        ({"params": 1_000_000}, "no student of 1,000,000 parameters.*the least is 1,525,924"),
        ({"student": "sd-tiny"}, "no smaller|attention there"),
        ({"student": "vega"}, "did you mean 'segmind-vega'"),
        ({"student": "nowhere.json"}, "no keep map at nowhere.json"),
        ({"params": 5_000_000, "pictures": 1000}, "pictures for calibration, not 2000"),
        ({"params": 5_000_000, "latents": "none"}, "no latents under"),
    ],
)
def test_what_cannot_be_carved_is_refused_with_the_reason(home: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(Carving(teacher="nano", name="x", **changes), nowhere)
    assert not list(home.glob("carved/*")), "something was left behind"


@pytest.mark.usefixtures("vega")
def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(ValueError, match=r"carved/vega exists: give another name"):
        run(Carving(teacher="nano", student="ssd-1b", name="vega"), nowhere)


def test_carve_convert_and_describe_are_commands(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def job(command: Callable[[list[str]], None], *words: str) -> dict[str, Any]:
        command(list(words))
        found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return found

    carved = job(jobs.carve.command, "nano", "--to", "ssd-1b")
    assert Path(carved["folder"]).name == "nano-ssd-1b"
    single = home / "student.safetensors"
    assert job(jobs.convert.command, carved["folder"], str(single), "--dtype", "fp16")["layout"] == "sgm"
    found = job(jobs.describe.command, str(single))["members"]["student.safetensors"]
    assert found["parameters"] == 4_672_516
    assert found["found"].startswith("nano-ssd-1b, names of sgm")
    back = job(jobs.convert.command, str(single), str(home / "back"), "--dtype", "fp16")
    assert (back["layout"], back["member"]) == ("diffusers", "nano-ssd-1b")
    assert same(load_unet(str(home / "back"), torch.float16), load_unet(carved["folder"], torch.float16))
    with pytest.raises(SystemExit):
        jobs.carve.command(["nano", "--params", "1e6", "--name", "small"])
    assert "the least is 1,525,924" in capsys.readouterr().err
