"""Held-out rows, the best checkpoint of a stage, and that a restart and any number of workers know the same."""

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from ssd1b.training import checkpoint, journal, pupil
from ssd1b.training.conditioning import Conditioning
from ssd1b.training.pupil import Pupil
from ssd1b.training.validation import EPOCH, Validation, held_out
from tests.training.alone import Alone, sd_recipe

CPU = torch.device("cpu")
HELD = 3
"""Held-out rows of the synthetic latents."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    folder = tmp_path_factory.mktemp("alone")
    return Alone(folder, sd_recipe(folder))


@pytest.fixture(scope="module")
def latents(alone: Alone) -> Path:
    return Path(alone.config.stages[0].teacher).parent / "latents"


def begin(alone: Alone, root: Path, latents: Path, **changes: Any) -> tuple[Pupil, Validation]:
    config = dataclasses.replace(alone.config, **changes)
    conditioning = Conditioning(config.base, CPU)
    student = pupil.start(config, root, 0, CPU)
    return student, Validation(held_out(latents, HELD), conditioning, root, 0, 1)


def test_held_out_rows_are_not_trained_on_and_the_same_each_time(alone: Alone, latents: Path) -> None:
    batches = held_out(latents, HELD)
    ids = [sample for batch in batches for sample in batch["sample_id"]]
    trained = {sample for bucket in alone.latents.buckets for sample in bucket.sample_ids.tolist()}
    assert len(ids) == HELD
    assert not set(ids) & trained
    tables = [pq.read_table(path, partitioning=None) for path in latents.glob("*/*.parquet")]
    out = {row["sample_id"]: row for table in tables for row in table.to_pylist() if row["split"] == "heldout"}
    assert ids == sorted(out)
    for batch in batches:
        assert batch["mean"] == [out[sample]["mean"] for sample in batch["sample_id"]]
        assert set(batch["epoch"]) == {EPOCH}
    assert [batch["sample_id"] for batch in held_out(latents, 2)] == [ids[:2]]


def test_without_held_out_rows_it_says_how_to_get_some(latents: Path) -> None:
    with pytest.raises(ValueError, match=r"validate_rows=99, but .* has 3 held-out rows: .* --set splits=\[\]"):
        held_out(latents, 99)


def test_the_loss_depends_on_the_weights_alone(alone: Alone, latents: Path, tmp_path: Path) -> None:
    student, validation = begin(alone, tmp_path, latents)
    first = validation.loss(student)
    torch.manual_seed(99)
    assert validation.loss(student) == first
    with torch.no_grad():
        student.parameters["conv_out.weight"].mul_(1.5)
    assert validation.loss(student) != first
    assert all(weight.grad is None for weight in student.student.parameters())


def shifted(student: Pupil, by: float) -> None:
    """Take one update's place: the student after it is this far from where it was."""
    with torch.no_grad():
        student.parameters["conv_out.bias"].add_(by)
    student.updates += 1


@pytest.mark.parametrize("restarted", [False, True])
def test_the_result_of_a_stage_is_its_best_checkpoint(
    alone: Alone, latents: Path, tmp_path: Path, restarted: bool
) -> None:
    """Of four, the second: each is farther from the teacher than it."""
    student, validation = begin(alone, tmp_path, latents)
    losses, weights = [], []
    for step, by in ((1, 8.0), (2, -6.0), (3, 5.0), (4, 1.0)):
        shifted(student, by)
        weights.append({name: weight.detach().clone() for name, weight in student.parameters.items()})
        if restarted and step == 4:
            validation = Validation(validation.batches, validation.conditioning, tmp_path, 0, 1)
        losses.append(validation.judge(student, step))
    assert losses[1] == min(losses)
    assert [checkpoint.step_of(folder) for folder in (tmp_path / "best-layers").glob("step-*")] == [2]
    assert all(torch.equal(weight, weights[1][name]) for name, weight in student.parameters.items())
    following = student.following()
    assert torch.equal(following.student.conv_out.bias, weights[1]["conv_out.bias"]), "the next stage starts from it"


def test_a_last_checkpoint_that_is_the_best_stays(alone: Alone, latents: Path, tmp_path: Path) -> None:
    student, validation = begin(alone, tmp_path, latents)
    for step, by in ((2, 8.0), (4, -6.0)):
        shifted(student, by)
        student.updates = step
        validation.judge(student, step)
    held = checkpoint.load(checkpoint.step_folder(tmp_path / "best-layers", 4))[0]["student"]
    assert all(torch.equal(weight, held[name]) for name, weight in student.parameters.items())


def test_the_average_is_what_is_judged(alone: Alone, latents: Path, tmp_path: Path) -> None:
    student, validation = begin(alone, tmp_path, latents, ema_decay=0.9)
    shifted(student, 8.0)
    assert student.average is not None
    untouched = validation.loss(begin(alone, tmp_path, latents)[0])
    assert validation.judge(student, 1) == pytest.approx(untouched)
    kept = checkpoint.load(checkpoint.step_folder(tmp_path / "best-layers", 1))[0]["student"]
    assert torch.equal(kept["conv_out.bias"], student.average["conv_out.bias"])
    assert not torch.equal(student.parameters["conv_out.bias"], student.average["conv_out.bias"])


def test_workers_share_the_rows_and_learn_one_sum(
    alone: Alone, latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, whole = begin(alone, tmp_path, latents)
    one_row_each = [{name: column[i : i + 1] for name, column in whole.batches[0].items()} for i in range(HELD)]
    parts: list[torch.Tensor] = []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda values: parts.append(values.clone()))
    for rank in range(2):
        Validation(one_row_each, whole.conditioning, tmp_path, rank, 2).loss(student)
    assert [int(part[1]) for part in parts] == [2, 1]
    summed = parts[0] + parts[1]
    assert (summed[0] / summed[1]).item() == pytest.approx(whole.loss(student), rel=1e-5)


def test_the_loop_judges_every_checkpoint_and_hands_on_the_best(alone: Alone, latents: Path, tmp_path: Path) -> None:
    """The learning rate of the second stage is so high that its last step makes the student worse."""
    stages = (alone.config.stages[0], dataclasses.replace(alone.config.stages[1], lr=1e-2, warmup_steps=0))
    config = dataclasses.replace(
        alone.config, latents=str(latents), validate_rows=HELD, checkpoint_steps=1, stages=stages, keep_checkpoints=9
    )
    Alone.like(alone, config).run(tmp_path)
    judged = {event["step"]: event["loss"] for event in journal.events(tmp_path) if event["kind"] == "validation"}
    assert sorted(judged) == [1, 2, 3, 4, 5, 6]
    assert judged[6] > judged[5]
    for stage, steps, end in (("layers", (1, 2, 3, 4), 4), ("more", (5, 6), 6)):
        best = min(steps, key=lambda step: judged[step])
        assert checkpoint.step_of(checkpoint.latest(tmp_path / f"best-{stage}") or tmp_path) == best
        found, wanted = (checkpoint.load(checkpoint.step_folder(tmp_path, step))[0]["student"] for step in (end, best))
        assert torch.equal(found["conv_out.bias"], wanted["conv_out.bias"])
    waits = [event["metrics"] for event in journal.events(tmp_path) if event["kind"] == "step"]
    assert all(told["wait_s"] > 0 and told["system/process_memory_gib"] > 0.1 for told in waits)
