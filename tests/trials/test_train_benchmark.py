"""jobs.benchmark train: do the contenders do the same, and is what it tells of them what was measured?"""

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ssd1b.corpus.contest import Turn
from ssd1b.elastic.rows import Latents
from ssd1b.recipes.benchmark import train as train_recipe
from ssd1b.training.machine import Machine, Waited
from ssd1b.trials import benchmark, step_contest
from ssd1b.trials.faults import write_latents
from ssd1b.trials.step_contest import BARE, OURS, PLAIN, Rivals, standing
from ssd1b.trials.stepwise import Stepwise
from ssd1b.trials.throughput import summary, throughput

ROOT = Path(__file__).parents[2]
SMALL = dataclasses.replace(train_recipe(), global_batch=4, slices=2, rounds=1, workers=())


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Latents:
    folder = tmp_path_factory.mktemp("latents")
    write_latents(folder, 64, 0)
    return Latents.open(folder)


# ---- ours against plain PyTorch


def test_ours_and_the_tutorial_learn_the_same(latents: Latents, tmp_path: Path) -> None:
    rivals = Rivals(benchmark.recipe(SMALL, 1000), latents, tmp_path)
    with rivals.ours:
        alike = rivals.likeness(2)
    assert alike.loss < 1e-5
    assert alike.weights < 1e-2


def test_a_tutorial_that_does_something_else_is_told_apart(
    latents: Latents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its features count half: the first loss differs, and so do the weights."""
    honest = step_contest.settings_of
    monkeypatch.setattr(
        step_contest, "settings_of", lambda config: dataclasses.replace(honest(config), feature_weight=0.25)
    )
    rivals = Rivals(benchmark.recipe(SMALL, 1000), latents, tmp_path)
    with rivals.ours:
        alike = rivals.likeness(1)
    assert alike.loss > 0.05
    assert alike.weights > 0.05


def test_the_standing_is_of_medians_in_the_same_round() -> None:
    def turns(*wall_s: float) -> list[Turn]:
        return [Turn(items=1, wall_s=each, cpu_s=2 * each) for each in wall_s]

    table = standing({OURS: turns(2.0, 4.0, 90.0), PLAIN: turns(1.0, 4.0, 30.0), BARE: turns(1.0, 1.0, 1.0)})
    assert table[PLAIN] == {"wall_ms": 4000.0, "wall_ratio": 2.0, "cpu_ms": 8000.0, "cpu_ratio": 2.0}
    assert table[BARE]["wall_ratio"] == 4.0


def test_an_error_of_the_loop_comes_out_of_the_step_that_met_it(latents: Latents, tmp_path: Path) -> None:
    rivals = Rivals(benchmark.recipe(SMALL, 1000), latents, tmp_path)

    def broken(step: int) -> list[dict[str, list[int]]]:
        assert step == 0
        return [{"slot": [77]}]

    loop = Stepwise(rivals.ours.task, broken)
    with loop, pytest.raises(AssertionError, match="a slice is out of order"):
        loop.step()
    assert not loop.thread.is_alive()


def test_a_loop_that_cannot_begin_says_so_at_once(latents: Latents, tmp_path: Path) -> None:
    rivals = Rivals(benchmark.recipe(SMALL, 1000), latents, tmp_path)
    lost = dataclasses.replace(rivals.ours.task.config, base=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="nowhere"), Stepwise(dataclasses.replace(rivals.ours.task, config=lost), list):
        raise AssertionError("entered")


# ---- waiting and memory


def test_waiting_is_counted_and_forgotten_once_told() -> None:
    def slow() -> Iterator[int]:
        time.sleep(0.05)
        yield 1
        time.sleep(0.05)

    waited = Waited(slow())
    assert next(waited) == 1
    first = waited.taken()
    assert 0.05 <= first < 0.5
    assert waited.taken() == 0.0
    with pytest.raises(StopIteration):
        next(waited)
    assert waited.taken() >= 0.05, "waiting for an end is waiting too"


def test_a_look_at_the_machine_sees_memory_and_cores() -> None:
    machine = Machine(torch.device("cpu"))
    before = machine.look()["system/process_memory_gib"]
    held = torch.ones(64 * 2**20 // 4)  # 64 MiB, all written
    end = time.process_time() + 0.1
    while time.process_time() < end:
        held[0] += 1
    after = machine.look()
    assert 0.05 < after["system/process_memory_gib"] - before < 0.2
    assert 0.05 < after["system/process_cores"] < 4
    assert set(after) == {"system/process_memory_gib", "system/process_cores"}


def test_the_summary_of_a_run_leaves_its_warming_up_out() -> None:
    def step(step_s: float, wait_s: float, gib: float) -> dict[str, object]:
        metrics = {"step_s": step_s, "wait_s": wait_s, "system/process_memory_gib": gib}
        return {"kind": "step", "metrics": metrics}

    events = [{"kind": "start"}, step(50.0, 40.0, 9.0), step(1.0, 0.0, 1.0), step(2.0, 0.5, 2.5), step(3.0, 0.1, 2.0)]
    assert summary(events, 8) == {"rows_per_s": 4.0, "step_ms": 2000.0, "wait_share": 0.1, "memory_gib": 2.5}


# ---- the whole run


@pytest.mark.slow
def test_the_whole_run_but_ray(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = dataclasses.replace(
        SMALL, global_batch=2, slices=1, steps=1, full_size="sd_small", size="256x256", scratch=str(tmp_path)
    )
    found = benchmark.train(config)
    assert found["alike"]["loss"] < 1e-5
    assert found["workers"] == {}
    assert set(found["step"]) == {OURS, PLAIN, BARE}
    assert all(row["wall_ms"] > 0 and row["cpu_ms"] > 0 for row in found["step"].values())
    assert found["step"][OURS]["wall_ratio"] == 1
    assert found["ours_over_plain"] == found["step"][PLAIN]["wall_ratio"]
    assert PLAIN in capsys.readouterr().out
    assert json.loads(json.dumps(found))
    assert not list(tmp_path.iterdir()), "what was written for the run is gone"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_run_through_ray_tells_its_rate_and_its_wait(latents: Latents, tmp_path: Path) -> None:
    recipe = benchmark.recipe(SMALL, 8)
    (found,) = throughput(recipe, latents, tmp_path, (1,)).values()
    assert found["rows_per_s"] == pytest.approx(4 * 1000 / found["step_ms"], rel=0.05)
    assert 0 < found["wait_share"] < 0.5
    assert 0.2 < found["memory_gib"] < 4


def test_the_tutorial_uses_nothing_of_ours() -> None:
    text = (ROOT / "ssd1b" / "trials" / "plain_loop.py").read_text()
    assert "import" in text
    assert "ssd1b." not in text.partition("import re")[2]
