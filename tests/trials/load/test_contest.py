"""The contest: what it says follows from what was measured; and once, small, the whole of it."""

import numpy as np
import pytest

from ssd1b.recipes.serving import ServeLoad, serve_smoke
from ssd1b.trials.load import contest
from ssd1b.trials.load.contest import Measured, over, told
from ssd1b.trials.load.report import Answer, report
from ssd1b.trials.load.trace import Mix

MIX = Mix(prompts=("a red apple",), adapters=("ink", "chalk"))
BLACK = np.zeros((8, 8, 3), np.uint8)


def answers(latencies: list[float], steps: int = 20) -> list[Answer]:
    return [Answer(planned_s=0, sent_s=0, answered_s=latency, status=200, steps=steps) for latency in latencies]


def measured(unloaded_s: float, latency_s: float, late: int) -> Measured:
    """A contestant that is this fast alone, and under load draws eight pictures in time and some too late."""
    run = answers([latency_s] * 8 + [99.0] * late)
    return Measured(answers([unloaded_s] * 3), 4.0, 76.0, {"0.8": (3.2, run)}, BLACK)


def test_what_is_told_follows_from_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    config = ServeLoad(shares=(0.8,), window_s=10.0)
    found = {"ours": measured(0.4, 0.5, 0), "one at a time": measured(0.3, 1.0, 4), "hopeless": measured(2.0, 50.0, 0)}
    result = told(config, MIX, found, {"best": 80.0, "swap": {"worst_stall_steps": 0.1}}, {})
    assert result["slo_s"] == 1.5, "five unloaded latencies of the fastest"
    assert result["goodput_of_ours_over"]["0.8"] == {"one at a time": 1.0, "hopeless": None}
    assert result["goals"] == {
        "p50_at_80_percent_over_unloaded": 1.25,
        "saturated_over_bare_engine": 0.95,
        "swap_stall_steps": 0.1,
        "best_goodput_over": {"one at a time": 1.0, "hopeless": None},
    }
    theirs = result["contestants"]["one at a time"]
    assert theirs["psnr_to_ours_db"] is None
    assert theirs["rates"]["0.8"]["attainment"] == pytest.approx(8 / 12, abs=1e-4)
    printed = capsys.readouterr().out
    assert "MLPerf-like, not a submission. SLO: 1.50 s, 5 x the unloaded 20-step request of one at a time" in printed
    assert "at 0.8 of what saturates ours" in printed


def test_the_best_rate_of_each_is_compared() -> None:
    def at(rate: int) -> object:
        return report(answers([0.1] * rate), 1.0, slo_s=1.0)

    ratios = over({"ours": {"a": at(4), "b": at(6)}, "theirs": {"a": at(2), "b": at(1), "knee": at(3)}})
    assert ratios == {"a": {"theirs": 2.0}, "b": {"theirs": 6.0}, "best": {"theirs": 2.0}}


def test_the_rates_come_from_ours() -> None:
    with pytest.raises(ValueError, match="the first must be 'ours'"):
        contest.contest(ServeLoad(contestants=("plain diffusers",)))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_the_whole_of_it_once() -> None:
    result = contest.contest(serve_smoke())
    ours, theirs = result["contestants"]["ours"], result["contestants"]["one at a time"]
    assert ours["saturated"]["pictures_per_s"] > 0
    assert ours["rates"]["0.5"]["failed"] == 0
    assert set(theirs["rates"]) == {"0.5", "knee"}
    assert theirs["psnr_to_ours_db"] is None or theirs["psnr_to_ours_db"] > 40
    assert result["client"]["p50_s"] < 0.1
