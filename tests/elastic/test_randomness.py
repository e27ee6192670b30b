"""Chance follows the sample."""

import hashlib
from typing import Any

import numpy as np

from ssd1b.elastic.randomness import Draw, draw

SHAPE = (4, 2, 3)


def one(epoch: int = 0, sample_id: int = 2**64 - 3, seed: int = 1, **options: Any) -> Draw:
    return draw(seed, epoch, sample_id, captions=["a", "b", "c"], shape=SHAPE, **options)


def same(a: Draw, b: Draw) -> bool:
    return (
        (a.timestep, a.caption, a.mirrored) == (b.timestep, b.caption, b.mirrored)
        and np.array_equal(a.noise_CHW, b.noise_CHW)
        and np.array_equal(a.posterior_CHW, b.posterior_CHW)
    )


def test_a_draw_depends_on_seed_epoch_and_sample_only() -> None:
    np.random.seed(3)
    first = one()
    one(sample_id=4)
    assert same(first, one())
    for other in (one(epoch=1), one(sample_id=2**64 - 4), one(seed=2)):
        assert not np.array_equal(first.noise_CHW, other.noise_CHW)
    assert not np.array_equal(first.noise_CHW, first.posterior_CHW)


def test_shares_and_ranges() -> None:
    draws = [one(sample_id=i, drop_share=0.25, mirror_share=0.5) for i in range(2000)]
    assert abs(sum(d.caption is None for d in draws) / 2000 - 0.25) < 0.03
    assert abs(sum(d.mirrored for d in draws) / 2000 - 0.5) < 0.04
    assert {d.caption for d in draws} == {"a", "b", "c", None}
    steps = [d.timestep for d in draws]
    assert 0 <= min(steps) < 10
    assert 990 <= max(steps) < 1000


def test_dropping_captions_does_not_change_the_noise() -> None:
    kept, dropped = one(), one(drop_share=1.0)
    assert dropped.caption is None
    assert kept.caption is not None
    assert np.array_equal(kept.noise_CHW, dropped.noise_CHW)


def test_a_row_without_captions_counts_as_dropped() -> None:
    assert draw(0, 0, 1, captions=[], shape=SHAPE).caption is None


def test_draws_do_not_drift() -> None:
    first = one(drop_share=0.1, mirror_share=0.5)
    digest = hashlib.sha256(first.noise_CHW.tobytes() + first.posterior_CHW.tobytes()).hexdigest()[:16]
    assert (first.timestep, first.caption, first.mirrored, digest) == GOLDEN


GOLDEN = (324, "a", True, "45f8dbbf07133ec5")
