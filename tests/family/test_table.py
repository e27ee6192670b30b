"""The family's table against published numbers, and the command that prints it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ssd1b.family.measure import anatomy
from ssd1b.family.table import FAMILY, PUBLISHED, new_unet, teacher_of
from ssd1b.models.describe import describe, description, heading, measured_subject, row
from ssd1b.sizes import Size

ROOT = Path(__file__).parents[2]

PARAMETERS = {
    "sdxl": 2_567_463_684,
    "ssd-1b": 1_331_334_404,
    "segmind-vega": 745_225_604,
    "koala-1b": 1_161_184_324,
    "koala-700m": 782_822_724,
    "sd-1.5": 859_520_964,
    "sd-small": 579_384_964,
    "sd-tiny": 323_384_964,
}
BLOCKS = {
    "sdxl": (70, 17), "ssd-1b": (34, 16), "segmind-vega": (15, 16), "koala-1b": (30, 11), "koala-700m": (21, 9),
    "sd-1.5": (16, 22), "sd-small": (10, 14), "sd-tiny": (9, 9),
}  # fmt: skip
TFLOPS = {"sdxl": 6.76, "ssd-1b": 4.21, "segmind-vega": 2.82, "koala-1b": 3.43, "koala-700m": 2.70}
"""Of one call at 1024 px with 77 text tokens."""


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_and_blocks_equal_the_published_counts(name: str) -> None:
    measured = measured_subject(name, None)
    assert measured.parameters == PARAMETERS[name] == PUBLISHED[name]
    assert (measured.transformer_blocks, measured.resnets) == BLOCKS[name]
    assert measured.fp16_bytes == 2 * PARAMETERS[name]


@pytest.mark.parametrize("name", TFLOPS)
def test_work_at_1024_px_is_within_a_percent_of_what_is_published(name: str) -> None:
    assert measured_subject(name, None).size == "1024x1024"
    assert measured_subject(name, None).tflops == pytest.approx(TFLOPS[name], rel=0.01)


def test_work_grows_with_the_size_and_is_a_call_of_that_size() -> None:
    small, wide, tall = (measured_subject("nano-sdxl", Size.parse(size)) for size in ("128x128", "256x128", "128x256"))
    assert wide.tflops == tall.tflops
    assert 1.5 < wide.tflops / small.tflops < 2.5
    assert (small.size, wide.size) == ("128x128", "256x128")


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_nano_twin_has_the_same_anatomy(name: str) -> None:
    assert anatomy(FAMILY[f"nano-{name}"]) == anatomy(FAMILY[name])
    assert teacher_of(f"nano-{name}") == (f"nano-{teacher_of(name)}" if teacher_of(name) else None)
    assert measured_subject(f"nano-{name}", None).parameters < PARAMETERS[name] / 100


def test_nano_widths_leave_the_student_under_sixty_percent() -> None:
    share = description("nano-ssd-1b").share
    assert share is not None
    assert 0.56 < share < 0.60


def test_an_unknown_member_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'ssd-1b'"):
        new_unet("ssd1b")


def test_what_was_removed_is_told_by_place() -> None:
    assert description("ssd-1b").removed == {
        "down_blocks.2": "12 of 20 transformer blocks",
        "up_blocks.0": "12 of 30 transformer blocks",
        "up_blocks.1": "2 of 6 transformer blocks",
        "mid_block": "attention of 10 transformer blocks, 1 of 2 resnets",
    }
    tiny = description("nano-sd-tiny").removed
    assert tiny["down_blocks.3"] == tiny["mid_block"] == "all of it"
    assert tiny["up_blocks.1"] == "1 of 3 layers"
    assert description("nano-koala-1b").removed["up_blocks.0"] == "1 of 3 layers, 8 of 20 transformer blocks"
    assert description("sdxl").removed == {}


def test_columns_are_aligned() -> None:
    lines = [*heading(), *(row(description(name)) for name in ("nano-sd-tiny", "nano-ssd-1b", "sdxl"))]
    assert len({len(line) for line in lines}) == 1


def test_sizes_that_a_unet_cannot_halve_are_refused() -> None:
    with pytest.raises(ValueError, match="size 1000x1000: sides must be multiples of 32 pixels"):
        describe(["sdxl"], Size(1000, 1000))


def test_the_command_answers_with_the_table_and_a_document() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobs.describe", "nano-sd-tiny", "sd-tiny", "--size", "256x128"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])["members"]
    assert found["sd-tiny"]["parameters"] == PARAMETERS["sd-tiny"]
    assert found["nano-sd-tiny"]["size"] == "256x128"
    assert "323,384,964" in done.stdout
    wrong = subprocess.run(
        [sys.executable, "-m", "jobs.describe", "ssd1b"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert wrong.returncode == 2
    assert "did you mean 'ssd-1b'" in wrong.stderr
