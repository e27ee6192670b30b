"""What a load test says of a server: throughput, latency and goodput, as MLPerf's server scenario reports them.

MLPerf-like, not a submission: the arrivals, percentiles and the idea of a latency bound are MLPerf Inference's (its
text to image task, server scenario); model, pictures, bound and durations are ours.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

DISCLAIMER = "MLPerf-like, not a submission"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of one request. Times are seconds from the beginning of the trace."""

    planned_s: float
    """When it was to be sent. Latency counts from here: a client that is late hides nothing."""
    sent_s: float
    answered_s: float | None = None
    """When the last byte was here; None if it never was."""
    status: int | None = None
    bytes: int = 0
    error: str = ""
    """Why there is no picture, "" if there is one."""
    steps: int = 0

    @property
    def ok(self) -> bool:
        return self.status == 200 and not self.error

    @property
    def latency_s(self) -> float:
        """From the planned arrival to the last byte; infinite without a picture."""
        return self.answered_s - self.planned_s if self.ok and self.answered_s is not None else math.inf


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run at one rate."""

    offered_per_s: float
    sent: int
    answered: int
    failed: int
    """Without a picture: refused, broken off, or not answered in time."""
    throughput_per_s: float
    """Pictures over the time from the beginning of the window to the last picture, or to its end if that is later."""
    mean_s: float | None
    """Of the answered."""
    p50_s: float | None
    """Percentiles are of all requests, by nearest rank; None where they fall among those without a picture."""
    p90_s: float | None
    p99_s: float | None
    slo_s: float
    attainment: float
    """Share of all requests that had their picture within the SLO."""
    goodput_per_s: float
    """Pictures within the SLO, a second of the window."""
    late_p99_ms: float
    """How late the client itself sent: 99th percentile."""


def report(answers: Sequence[Answer], window_s: float, slo_s: float) -> Report:
    """Return what the answers to the requests of a window of so many seconds say."""
    assert answers, "a window without requests says nothing"
    latencies = sorted(answer.latency_s for answer in answers)
    good = sum(latency <= slo_s for latency in latencies)
    made = [answer for answer in answers if answer.ok]
    end_s = max([window_s, *(answer.answered_s or 0.0 for answer in made)])
    late = sorted(answer.sent_s - answer.planned_s for answer in answers)
    return Report(
        offered_per_s=round(len(answers) / window_s, 3),
        sent=len(answers),
        answered=len(made),
        failed=len(answers) - len(made),
        throughput_per_s=round(len(made) / end_s, 3),
        mean_s=rounded(sum(answer.latency_s for answer in made) / len(made)) if made else None,
        p50_s=rounded(percentile(latencies, 50)),
        p90_s=rounded(percentile(latencies, 90)),
        p99_s=rounded(percentile(latencies, 99)),
        slo_s=round(slo_s, 3),
        attainment=round(good / len(answers), 4),
        goodput_per_s=round(good / window_s, 3),
        late_p99_ms=round(1000 * percentile(late, 99), 2),
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of sorted numbers: the least one that so many per cent do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def rounded(seconds: float) -> float | None:
    return round(seconds, 4) if math.isfinite(seconds) else None


def rate_within(answers: Sequence[Answer], begin_s: float, end_s: float) -> tuple[float, float]:
    """Return pictures a second, and denoising steps a second, of what was answered between two moments.

    Of callers who ask again at once: what had been begun before the first moment and what had not ended at the second
    are of one size on the average, and cancel.
    """
    inside = [each for each in answers if each.ok and begin_s < (each.answered_s or 0.0) <= end_s]
    seconds = end_s - begin_s
    return len(inside) / seconds, sum(each.steps for each in inside) / seconds


COLUMNS = (
    ("", "name"), ("offered/s", "offered_per_s"), ("pictures/s", "throughput_per_s"), ("good/s", "goodput_per_s"),
    ("in SLO", "attainment"), ("mean s", "mean_s"), ("p50", "p50_s"), ("p90", "p90_s"), ("p99", "p99_s"),
    ("sent", "sent"), ("failed", "failed"), ("late ms", "late_p99_ms"),
)  # fmt: skip


def rows(reports: dict[str, Report]) -> list[dict[str, str]]:
    """Return the reports as the rows of a table (`ssd1b.trials.recovery.table`), one for each name."""
    return [{title: said(name if key == "name" else getattr(one, key)) for title, key in COLUMNS}
            for name, one in reports.items()]  # fmt: skip


def said(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
