"""The family's table against published numbers."""

import pytest

from ssd1b.family.measure import describe, measure_member, table
from ssd1b.family.table import FAMILY, new_unet
from ssd1b.recipes.describe import RECIPES, Describe

PUBLISHED = {
    "sdxl": 2_567_463_684,
    "ssd-1b": 1_331_334_404,
    "segmind-vega": 745_225_604,
    "sd-1.5": 859_520_964,
    "sd-small": 579_384_964,
    "sd-tiny": 323_384_964,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_equal_the_published_counts(name: str) -> None:
    assert measure_member(name).parameters == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_nano_twin_has_the_same_blocks(name: str) -> None:
    full, nano = measure_member(name), measure_member(f"nano-{name}")
    assert (nano.transformer_blocks, nano.resnets) == (full.transformer_blocks, full.resnets)
    assert nano.parameters < full.parameters / 100


def test_ssd_1b_keeps_34_of_70_transformer_blocks_and_16_of_17_resnets() -> None:
    teacher, student = measure_member("sdxl"), measure_member("ssd-1b")
    assert (teacher.transformer_blocks, teacher.resnets) == (70, 17)
    assert (student.transformer_blocks, student.resnets) == (34, 16)


def test_nano_widths_leave_the_student_under_sixty_percent() -> None:
    share = measure_member("nano-ssd-1b").parameters / measure_member("nano-sdxl").parameters
    assert 0.56 < share < 0.60


def test_an_unknown_member_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'ssd-1b'"):
        new_unet("ssd1b")


def test_recipes_name_members_of_the_family() -> None:
    assert set(RECIPES["all"]().members) == set(FAMILY)
    assert all(name.startswith("nano-") for name in RECIPES["nano"]().members)


def test_describe_prints_a_table_and_returns_it(capsys: pytest.CaptureFixture[str]) -> None:
    result = describe(Describe(members=("nano-sd-tiny",)))
    assert result["members"]["nano-sd-tiny"]["transformer_blocks"] == 9
    printed = capsys.readouterr().out.splitlines()
    assert printed == table([("nano-sd-tiny", measure_member("nano-sd-tiny"))])
    assert len({len(line) for line in printed}) == 1, "columns are not aligned"
