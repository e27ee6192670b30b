"""Numbers over prompts: what they mean at the edges."""

import math

import pytest
import torch

from ssd1b.evaluation import metrics


def test_a_score_above_chance_is_zero_for_a_picture_that_ignores_its_prompt() -> None:
    cosine_NN = torch.full((4, 4), 0.3)
    assert torch.allclose(metrics.above_chance(cosine_NN), torch.zeros(4), atol=1e-6)


def test_a_score_above_chance_compares_with_the_other_prompts_only() -> None:
    cosine_NN = torch.tensor([[0.9, 0.1, 0.3], [0.0, 0.5, 0.2], [0.4, 0.4, 0.4]])
    assert torch.allclose(metrics.above_chance(cosine_NN), torch.tensor([0.7, 0.4, 0.0]), atol=1e-6)


def test_the_interval_of_a_mean_holds_it_and_narrows_with_more_prompts() -> None:
    generator = torch.Generator().manual_seed(1)
    few, many = torch.randn(20, generator=generator), torch.randn(2000, generator=generator)
    for values in (few, many):
        estimate = metrics.mean(values)
        assert estimate.low < estimate.value < estimate.high
        assert estimate.value == pytest.approx(values.mean().item(), abs=1e-6)
    assert metrics.mean(many).high - metrics.mean(many).low < (metrics.mean(few).high - metrics.mean(few).low) / 5


def test_the_interval_is_the_textbook_one_for_a_large_sample() -> None:
    values = torch.randn(5000, generator=torch.Generator().manual_seed(2))
    estimate = metrics.mean(values)
    half = 1.96 * values.std().item() / math.sqrt(len(values))
    assert estimate.high - estimate.low == pytest.approx(2 * half, rel=0.1)


def test_a_ratio_draws_both_sides_together() -> None:
    below = torch.rand(50, generator=torch.Generator().manual_seed(3)) + 0.1
    estimate = metrics.ratio(0.9 * below, below)
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((0.9, 0.9, 0.9))


def test_a_ratio_to_nothing_is_not_a_number() -> None:
    assert math.isnan(metrics.ratio(torch.ones(5), -torch.ones(5)).value)


def test_the_same_pictures_are_at_no_distance_and_unrelated_ones_at_some() -> None:
    generator = torch.Generator().manual_seed(4)
    features_ND = torch.randn(8, 32, generator=generator)
    assert torch.allclose(metrics.feature_distance(features_ND, features_ND), torch.zeros(8), atol=1e-6)
    assert (metrics.unrelated(metrics.feature_distance, features_ND, features_ND) > 0.5).all()


def test_unrelated_leaves_the_own_pair_out() -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    # to (0,1) and (-1,0); to (1,0) and (-1,0); to (1,0) and (0,1)
    assert metrics.unrelated(metrics.feature_distance, a, a).tolist() == pytest.approx([1.5, 1.0, 1.5])


def test_of_many_others_some_stand_for_all() -> None:
    features_ND = torch.randn(400, 8, generator=torch.Generator().manual_seed(5))
    all_N = torch.stack([metrics.feature_distance(features_ND, features_ND.roll(i, 0)) for i in range(1, 400)]).mean(0)
    assert torch.allclose(metrics.unrelated(metrics.feature_distance, features_ND, features_ND), all_N, atol=0.2)


def test_pixel_distance_counts_levels_of_zero_to_one() -> None:
    black, white = torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.full((2, 4, 4, 3), 255, dtype=torch.uint8)
    assert metrics.pixel_distance(black, white).tolist() == [1.0, 1.0]


def test_an_estimate_names_its_numbers() -> None:
    assert metrics.Estimate(1.0, 0.5, 1.5, 9).named("x") == {"x": 1.0, "x_low": 0.5, "x_high": 1.5}
