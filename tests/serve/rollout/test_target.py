"""Champion and canary: the share holds, and a request always falls to the same version."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.request import GenerationRequest
from serve.rollout.target import Canary, Target, position

PROMPTS = [GenerationRequest(prompt=f"picture {i % 50}", seed=i) for i in range(4000)]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.25, 0.9, 1.0])
def test_the_canary_gets_its_share(share: float) -> None:
    target = Target("3", Canary("4", share))
    got = sum(target.version_for(request) == "4" for request in PROMPTS) / len(PROMPTS)
    assert got == pytest.approx(share, abs=0.02)


def test_a_growing_share_takes_nobody_back_to_the_champion() -> None:
    few, more = (Target("3", Canary("4", share)) for share in (0.1, 0.3))
    assert all(more.version_for(one) == "4" for one in PROMPTS if few.version_for(one) == "4")


@given(prompt=st.text(max_size=40), seed=st.integers(0, 2**53 - 1))
def test_a_request_falls_to_one_place(prompt: str, seed: int) -> None:
    request = GenerationRequest(prompt=prompt, seed=seed)
    assert 0 <= position(request) < 1
    assert position(request) == position(GenerationRequest(prompt=prompt, seed=seed, n=4, output_format="webp"))


def test_without_a_canary_the_champion_draws_all() -> None:
    assert {Target("3").version_for(request) for request in PROMPTS} == {"3"}
    assert Target("3").versions == ("3",)
    assert Target("3", Canary("4", 0.5)).versions == ("3", "4")
