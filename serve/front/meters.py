"""What the front counts, for Prometheus: by dialect and status, and how long the answers took.

Ray exports it with the cluster's metrics. Outside of a Ray process the same calls count for nobody.
"""

from dataclasses import dataclass, field

from ray.serve.metrics import Counter, Histogram

SECONDS = [0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]


def requests() -> Counter:
    return Counter("ssd1b_front_requests", "Answers, by dialect and HTTP status.", ("dialect", "status"))


def pictures() -> Counter:
    return Counter("ssd1b_front_pictures", "Pictures delivered, by dialect.", ("dialect",))


def latency() -> Histogram:
    return Histogram(
        "ssd1b_front_latency_s",
        "Seconds from the first byte of a request to the last of its answer, by dialect.",
        SECONDS,
        ("dialect",),
    )


@dataclass(frozen=True)
class Meters:
    """One set for a process."""

    requests: Counter = field(default_factory=requests)
    pictures: Counter = field(default_factory=pictures)
    latency: Histogram = field(default_factory=latency)

    def count(self, dialect: str, status: int, seconds: float, pictures: int) -> None:
        self.requests.inc(1, {"dialect": dialect, "status": str(status)})
        self.latency.observe(seconds, {"dialect": dialect})
        if pictures:
            self.pictures.inc(pictures, {"dialect": dialect})
