"""A trace offers what was asked for: the rate, the shares, the popularity; and the same to everybody."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd1b.trials.load.trace import Mix, at_once, dealt, endless, poisson, zipf

PROMPTS = ("a red apple", "a tiger")
NAMES = tuple(f"style-{i}" for i in range(12))

mixes = st.builds(
    Mix,
    prompts=st.just(PROMPTS),
    adapters=st.integers(0, 12).map(lambda count: NAMES[:count]),
    exponent=st.floats(0, 2),
    plain_share=st.floats(0, 1),
    steps=st.just(((8, 0.3), (20, 0.5), (30, 0.2))),
    sizes=st.sampled_from([("128x128",), ("1024x1024", "896x1152")]),
)


@given(mix=mixes, rate=st.floats(0.1, 5), seconds=st.floats(1, 20), seed=st.integers(0, 999))
def test_a_trace_is_what_was_asked_for(mix: Mix, rate: float, seconds: float, seed: int) -> None:
    asks = poisson(mix, rate, seconds, seed)
    assert len(asks) == max(1, round(rate * seconds))
    assert asks == poisson(mix, rate, seconds, seed)
    moments = [ask.at_s for ask in asks]
    assert moments == sorted(moments)
    assert moments[0] >= 0
    assert moments[-1] <= seconds
    assert len({ask.seed for ask in asks}) == len(asks)
    assert {ask.size for ask in asks} <= set(mix.sizes)
    assert {ask.adapter for ask in asks} <= {None, *mix.adapters}
    for steps, weight in mix.steps:
        assert abs(sum(ask.steps == steps for ask in asks) - weight * len(asks)) < 1
    plain = sum(ask.adapter is None for ask in asks)
    assert abs(plain - (mix.plain_share if mix.adapters else 1) * len(asks)) < 1


def test_what_is_asked_does_not_depend_on_when() -> None:
    """So contestants that are given unlike rates are asked for alike pictures."""
    mix = Mix(prompts=PROMPTS, adapters=NAMES)
    slow, fast = poisson(mix, 1, 40, seed=3), poisson(mix, 4, 10, seed=3)
    assert [ask.body() for ask in slow] == [ask.body() for ask in fast]
    assert [ask.at_s for ask in slow] != [ask.at_s for ask in fast]


def test_arrivals_are_those_of_a_poisson_process() -> None:
    """Gaps are exponential: as many standard deviations as means, and no memory."""
    asks = poisson(Mix(prompts=PROMPTS), 100, 200, seed=1)
    gaps = np.diff([ask.at_s for ask in asks])
    assert gaps.mean() == pytest.approx(0.01, rel=0.02)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.03


def test_adapters_are_as_popular_as_zipf_says() -> None:
    asks = at_once(Mix(prompts=PROMPTS, adapters=NAMES, exponent=1.0, plain_share=0.0), 20_000, seed=2)
    found = np.array([sum(ask.adapter == name for ask in asks) for name in NAMES]) / len(asks)
    assert found == pytest.approx(zipf(12, 1.0), abs=0.01)
    assert zipf(3, 1.0) == pytest.approx(np.array([6, 3, 2]) / 11)
    assert zipf(4, 0.0) == pytest.approx(np.full(4, 0.25))


@given(weights=st.lists(st.floats(0.01, 1), min_size=1, max_size=6), count=st.integers(0, 200), seed=st.integers(0, 99))
def test_cards_are_dealt_by_their_weights(weights: list[float], count: int, seed: int) -> None:
    cards = dealt(list(enumerate(weights)), count, np.random.default_rng(seed))
    assert len(cards) == count
    for card, weight in enumerate(weights):
        assert abs(cards.count(card) - count * weight / sum(weights)) < 1 + 1e-9


def test_callers_who_go_on_never_ask_for_the_same_picture_twice() -> None:
    asks = endless(Mix(prompts=PROMPTS), seed=5)
    assert len({next(asks).seed for _ in range(2500)}) == 2500


@pytest.mark.parametrize("fields", [{"prompts": ()}, {"prompts": PROMPTS, "sizes": ()}])
def test_a_mix_of_nothing_is_refused(fields: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ValueError, match="at least one of each"):
        Mix(**fields)


def test_numbers_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"plain_share 1.5"):
        Mix(prompts=PROMPTS, plain_share=1.5)
    with pytest.raises(ValueError, match="above 0"):
        poisson(Mix(prompts=PROMPTS), 0, 10, seed=0)


def test_the_mean_number_of_steps() -> None:
    assert Mix(prompts=PROMPTS).mean_steps == pytest.approx(18.4)
