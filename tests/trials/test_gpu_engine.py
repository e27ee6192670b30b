"""The GPU benchmark's twin on a CPU: every section once, at nano width."""

from dataclasses import replace

import pytest

from ssd1b.recipes.gpu_engine import small
from ssd1b.trials.gpu_engine import gpu_engine


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_section_says_something() -> None:
    result = gpu_engine(replace(small(), batches=(1,), steps=1))
    assert set(result["members"]) == {"nano-sdxl", "nano-ssd-1b"}
    for member in result["members"].values():
        assert member["steps_per_s"]["1"].keys() == {"diffusers", "eager"}
        assert all(rate > 0 for rate in member["steps_per_s"]["1"].values())
    assert result["members"]["nano-sdxl"]["parameters"] > result["members"]["nano-ssd-1b"]["parameters"]
    assert result["bank"]["4"]["eager"].keys() == {"1", "2"}
    assert result["live"]["slot"] < result["live"]["diffusers"]
    assert 0 < result["decode"]["share"]["30"] < result["decode"]["share"]["4"] < 1
    assert result["student_over_teacher"]["1"].keys() == {"diffusers", "eager"}
