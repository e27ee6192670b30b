"""A whole run on a real cluster: a worker is killed with SIGKILL and nothing is lost but time."""

import json
import math
import os
import signal
import threading
import time
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ssd1b import tracking
from ssd1b.models.files import load_unet
from ssd1b.recipes.distill import Distillation, Stage
from ssd1b.training import journal
from ssd1b.training.trainer import distill
from tests.training.synthetic import write_latents, write_model


def config(home: Path, **changes: Any) -> Distillation:
    base = write_model(home / "base", seed=1)
    stages = tuple(
        Stage(name=name, teacher=base, carve=(name,), steps=4, lr=1e-3, warmup_steps=2)
        for name in ("mid", "down", "up")
    )
    fields: dict[str, Any] = {
        "run": "killed", "base": base, "latents": "tiny", "stages": stages, "registered_name": "student",
        "global_batch": 8, "slices": 4, "num_workers": (1, 2), "checkpoint_steps": 2, "log_steps": 1,
        "prompts": ("a red apple",), "picture_steps": 2,
    }  # fmt: skip
    return Distillation(**{**fields, **changes})


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # a killed child that nobody has waited for yet is dead all the same
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for(found: Any, seconds: float) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.timeout(900)
def test_a_killed_worker_does_not_end_the_run(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_latents(home / "latents" / "tiny")
    told = config(home)
    root = home / "distill" / "killed"
    outcome: list[dict[str, Any] | BaseException] = []

    def job() -> None:
        try:
            outcome.append(distill(told))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=job)
    thread.start()

    def busy() -> dict[str, Any] | None:
        if outcome:
            raise AssertionError(f"the run ended before it was hurt: {outcome}")
        events = journal.events(root)
        return events[0] if any(event["kind"] == "step" and event["step"] >= 3 for event in events) else None

    start = wait_for(busy, 400)
    os.kill(start["pid"], signal.SIGKILL)
    wait_for(lambda: not is_alive(start["pid"]), 20)
    thread.join(400)
    assert outcome, "the run hangs"
    assert not isinstance(outcome[0], BaseException), outcome[0]
    result = outcome[0]

    assert result["restarts"] >= 1
    assert result["world_sizes"][-1] == 2
    assert (result["repeated"], result["missed"]) == (0, 0)
    assert result["samples"] == 12 * told.global_batch
    events = journal.events(root)
    steps = journal.surviving_steps(events)
    assert sorted(steps) == list(range(1, 13))
    for event in events:  # a step taken again meets the same samples, noise and weights
        if event["kind"] == "step":
            assert event["metrics"]["loss"] == pytest.approx(steps[event["step"]]["metrics"]["loss"], rel=1e-3)
    assert all(math.isfinite(step["metrics"]["loss"]) for step in steps.values())
    assert result["stages"]["up"]["student_parameters"] < result["stages"]["mid"]["student_parameters"]
    assert "restart: " in capsys.readouterr().out

    version = tracking.version_of("student", "candidate")
    assert result["registered"] == version.uri
    assert version.tags["run"] == "killed"
    unet = load_unet(str(tracking.download(version.uri)))
    assert sum(weight.numel() for weight in unet.parameters()) == result["student_parameters"]
    assert (root / "stage-down" / "teacher_beside_student.png").stat().st_size > 1000

    again = distill(told)  # the same job once more: nothing left to do, and no second version
    assert again["registered"] == result["registered"]
    assert again["restarts"] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latents": "absent"}, r"no latents to train on under .*latents/absent: run `python -m jobs.encode`"),
        ({"base": "nano+unheard"}, "no expert 'unheard' in the nano family: choose from"),
        ({"slices": 3}, "8 rows does not divide into 3 slices"),
        ({"stages": ()}, "the schedule has no stages"),
    ],
)
def test_what_cannot_work_is_refused_before_a_cluster_is_asked(
    home: Path, changes: dict[str, Any], message: str
) -> None:
    write_latents(home / "latents" / "tiny")
    with pytest.raises(ValueError, match=message):
        distill(config(home, **changes))


def test_a_run_cannot_go_on_as_another(home: Path) -> None:
    from ssd1b.elastic.rows import Latents
    from ssd1b.training.trainer import claim, identity

    latents = Latents.open(write_latents(home / "latents" / "tiny"))
    told = config(home)
    claim(home, identity(told, latents))
    claim(home, identity(config(home / "x", base=told.base, stages=told.stages, num_workers=(1, 7)), latents))
    with pytest.raises(ValueError, match=r"started with another recipe: .*--set run="):
        claim(home, identity(config(home / "y", base=told.base, stages=told.stages, seed=9), latents))


def test_slices_left_open_are_chosen_once_and_stay(home: Path) -> None:
    from ssd1b.training.trainer import Notes, slices_of

    notes = Notes(home)
    open_ = config(home, slices=None, global_batch=64, num_workers=(1, 4), rows_per_slice=8)
    chosen = slices_of(open_, notes)
    assert chosen == 8
    notes.set("slices", str(chosen))
    more = config(home / "x", slices=None, global_batch=64, num_workers=(1, 16), rows_per_slice=1)
    assert slices_of(more, Notes(home / "y")) != chosen
    assert slices_of(more, Notes(home)) == chosen, "more workers have changed the order of a run"
    assert slices_of(config(home / "z", slices=2), Notes(home)) == 2
    with pytest.raises(ValueError, match="cannot give each of 9 workers a row"):
        slices_of(config(home / "w", slices=None, num_workers=(1, 9)), Notes(home / "y"))


def test_several_corpora_are_one_run_and_know_each_other(home: Path) -> None:
    from ssd1b.recipes.distill import Corpus
    from ssd1b.training.trainer import identity, open_latents

    write_latents(home / "latents" / "tiny")
    more = write_latents(home / "latents" / "more", rows=33, first=1000)
    alone = config(home)
    mixed = replace(alone, weight=3, mixed_in=(Corpus(latents="more", weight=2),))
    latents = open_latents(mixed)
    assert [(share.weight, share.buckets) for share in latents.mixture] == [(3, 1), (2, 1)]
    assert [len(bucket.rows) for bucket in latents.buckets] == [40, 33]
    assert not open_latents(alone).mixture
    told = [identity(one, open_latents(one)) for one in (alone, mixed, replace(mixed, weight=1))]
    assert len({one["recipe"] for one in told}) == 3
    assert len({one["latents"] for one in told}) == 3
    with pytest.raises(ValueError, match="latents named twice"):
        open_latents(replace(alone, mixed_in=(Corpus(latents="tiny"),)))
    summary = more / "_summary.json"
    summary.write_text(summary.read_text().replace("nano's", "another's"))
    with pytest.raises(ValueError, match=r"latents of unlike VAEs cannot be mixed: 'tiny' by that of 'nano', 'more'"):
        open_latents(mixed)
    summary.write_text("{}")
    with pytest.raises(ValueError, match=r"latents 'more' do not say of which VAE they are"):
        open_latents(mixed)


def test_a_run_of_one_corpus_is_the_run_that_it_was_before_there_were_several(home: Path) -> None:
    from ssd1b.training.trainer import ADDED, FREE, MAY_CHANGE, identity, open_latents

    write_latents(home / "latents" / "tiny")
    told = config(home)
    before = {**asdict(told), **dict.fromkeys(MAY_CHANGE)}
    for name in ("weight", "mixed_in", "rows_per_slice", *FREE, *ADDED):
        del before[name]
    assert identity(told, open_latents(told))["recipe"] == sha256(json.dumps(before).encode()).hexdigest()[:16]
    for changed in (replace(told, compiled=True), replace(told, spot_notices=("aws",))):
        assert identity(changed, open_latents(changed)) == identity(told, open_latents(told))
    for other in (replace(told, noise_offset=0.05), replace(told, optimizer="adamw_8bit")):
        assert identity(other, open_latents(other))["recipe"] != identity(told, open_latents(told))["recipe"]
