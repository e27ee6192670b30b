"""What a step costs at full size: the estimates, each against another count, and gpu_step at nano width on a CPU."""

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig

from ssd1b.family.carve import keep_map
from ssd1b.family.measure import example, measure
from ssd1b.family.table import member, new_unet
from ssd1b.recipes import distill as recipes
from ssd1b.recipes.benchmark import TrainStep
from ssd1b.recipes.benchmark import train as train_recipe
from ssd1b.recipes.gpu_step import GpuStep, small
from ssd1b.sizes import Size
from ssd1b.training.losses import terms
from ssd1b.training.machine import GIB
from ssd1b.training.taps import Taps, tap_places
from ssd1b.trials import benchmark, cost, gpu_step, memory
from ssd1b.trials.full_size_text import CLIP_L_WEIGHTS, OPEN_CLIP_G_WEIGHTS

ROOT = Path(__file__).parents[2]


def test_the_text_towers_are_of_the_published_size() -> None:
    for (kind, config), published in zip(cost.SDXL_LINE_TEXT, (CLIP_L_WEIGHTS, OPEN_CLIP_G_WEIGHTS), strict=True):
        with torch.device("meta"):
            tower = kind(CLIPTextConfig(**config))
        assert sum(parameter.numel() for parameter in tower.parameters()) == published


def test_the_work_of_a_row_is_what_pytorch_counts_of_forward_and_backward() -> None:
    """The rule of three is near: the text, for one, gets no gradient."""
    size = Size(512, 512)
    with torch.device("meta"):
        unet = new_unet("segmind-vega").train()
        with FlopCounterMode(display=False) as counter:
            unet(**example(unet, size))[0].sum().backward()
    work = cost.Work(text=0.25, teacher=2.0, student=measure(member("segmind-vega"), size).tflops)
    assert work.row - 2.25 == pytest.approx(counter.get_total_flops() / 1e12, rel=0.015)


@pytest.mark.slow
def test_stages_cost_what_is_left_of_the_student_by_then() -> None:
    """At nano width, since the full one takes its time to count."""
    recipe = dataclasses.replace(recipes.ssd1b_a100(), student="nano-ssd-1b")
    found = list(cost.stage_costs(recipe, Size(128, 128), gpus=4, gpu_tflops=312.0, mfu=0.4))
    assert sum(stage.rows for stage in found) == 251_000 * 32
    student = [stage.work.student for stage in found]
    assert student == sorted(student, reverse=True)
    assert student[0] < found[0].work.teacher
    assert student[-1] == pytest.approx(measure(member("nano-ssd-1b"), Size(128, 128)).tflops)
    for stage in found:
        assert stage.hours == pytest.approx(stage.rows * stage.work.row / (4 * 312.0 * 0.4) / 3600)
        mfu = cost.published_mfu(stage.rows, stage.work, gpus=4, gpu_tflops=312.0, hours=stage.hours)
        assert mfu == pytest.approx(0.4)


def test_a_student_of_nobody_has_no_cost() -> None:
    with pytest.raises(ValueError, match="student='sdxl' has no teacher in the family: choose from ssd-1b"):
        list(cost.stage_costs(dataclasses.replace(recipes.ssd1b_a100(), student="sdxl"), None, gpus=1, gpu_tflops=1,
                              mfu=1))  # fmt: skip


@pytest.mark.parametrize("rows", [1, 3])
def test_what_a_step_keeps_is_counted_as_it_is_on_real_tensors(rows: int) -> None:
    """At nano width, in float32, by hooks of the test's own on tensors that have values."""
    size = Size(128, 128)
    teacher, student = new_unet("nano-sdxl").requires_grad_(False), new_unet("nano-ssd-1b").train()
    places = tap_places(teacher, student, keep_map(teacher.config, "nano-ssd-1b"))
    asked = example(student, size, rows)
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with Taps(teacher, {name: name for name in places.values()}) as theirs, Taps(student, places) as ours:
        with torch.no_grad():
            out_BCHW = teacher(**asked)[0]
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            features = theirs.take()
            errors = terms(student(**asked)[0], out_BCHW, asked["sample"], ours.take(), features)
        for feature in features.values():
            keep(feature)
    assert len(errors) == 2 + 26
    own = {parameter.untyped_storage().data_ptr() for parameter in student.parameters()}
    held = sum(tensor.untyped_storage().nbytes() for key, tensor in saved.items() if key not in own)
    assert memory.kept_bytes("nano-ssd-1b", size, rows, half=False) == pytest.approx(held, rel=0.02)


def test_rows_that_fit_are_a_power_of_two_within_what_is_free() -> None:
    gib = int(GIB)
    for free in range(1, 40):
        rows = memory.fitting_rows(10 * gib, 3 * gib, 2 * gib, 10.0 + free)
        if free < 3:
            assert rows == 0
        else:
            assert 3 + 2 * (rows - 1) <= free < 3 + 2 * (2 * rows - 1)
            assert rows & (rows - 1) == 0


def test_the_estimate_of_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    config = dataclasses.replace(train_recipe(), full_size="sd_small", size="512x512")
    found = benchmark.full_size(config)
    assert found["stages"]["all"]["rows"] == 95_000 * 32
    assert found["usd"] == pytest.approx(found["hours"] * 4 * 2.0, rel=0.05)
    assert found["row_tflops"]["all"] == pytest.approx(found["stages"]["all"]["row_tflops"])
    assert found["memory"]["teacher_gib"] == round(2 * 859_520_964 / GIB, 2)
    assert found["memory"]["float32"]["further_row_gib"] > found["memory"]["bfloat16"]["further_row_gib"] > 0
    assert "an estimate" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"'ssd1b_a10' is no recipe \(did you mean 'ssd1b_a100'"):
        benchmark.full_size(TrainStep(full_size="ssd1b_a10"))


# ---- the GPU's half on a CPU


@pytest.fixture(scope="module")
def stepped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Micro-batches of 1, 2, 4, ... rows; those of 4 do not fit, which is found in the middle of a step."""
    scratch = tmp_path_factory.mktemp("gpu-step")
    honest, met = gpu_step.Trainer.loss, []

    def loss(self: gpu_step.Trainer, batch: gpu_step.Batch) -> torch.Tensor:
        met.append(len(batch.real_B))
        made = honest(self, batch)
        if len(batch.real_B) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_step.Trainer, "loss", loss)
        config = dataclasses.replace(small(), most_rows=16, steps=1, scratch=str(scratch))
        yield gpu_step.gpu_step(config) | {"met": met, "left": list(scratch.iterdir())}


@pytest.mark.slow
def test_the_gpu_half_measures_micro_batches_until_one_does_not_fit(stepped: dict[str, Any]) -> None:
    assert set(stepped["micro_batches"]) == {1, 2}
    assert stepped["does_not_fit"] == 4
    assert max(stepped["met"]) == 4, "nothing larger is tried"
    assert stepped["fastest"] in (1, 2)
    assert not stepped["left"], "the random weights are gone"


@pytest.mark.slow
def test_the_figures_of_a_micro_batch_follow_from_its_seconds(stepped: dict[str, Any]) -> None:
    for row in stepped["micro_batches"].values():
        assert row["rows_per_s"] == pytest.approx(2 / row["step_s"], rel=0.01)
        assert row["tflops"] == pytest.approx(row["rows_per_s"] * stepped["row_tflops"], rel=0.05, abs=1e-4)
        assert row["mfu"] is None, "a CPU has no peak here"
        assert row["over_the_passes_alone"] > 0
        assert min(row["parts_s"].values()) > 0


def test_random_weights_are_made_of_the_sdxl_line_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="random weights are made of sdxl and nano-sdxl"):
        gpu_step.gpu_step(GpuStep(teacher="sd-1.5", scratch=str(tmp_path)))


@pytest.mark.slow
def test_the_gpu_half_starts_where_ray_and_mlflow_cannot_be() -> None:
    missing = ("ray", "mlflow", "matplotlib", "onnx", "onnxruntime", "openvino", "peft")
    program = f"import sys\nfor name in {missing}: sys.modules[name] = None\nimport ssd1b.trials.gpu_step"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
