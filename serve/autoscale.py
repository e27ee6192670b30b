"""How many replicas there should be: as many as drain the queued denoising work in a stated time.

Requests say little of work: one picture of 8 steps and ten of 50 count the same. So work is counted in steps of
pictures of the first size, and what a replica does of them a second is measured while it does them.

`desired` decides. `WorkPolicy` brings it to Ray Serve, which pickles this module by value into its controller: nothing
of this project may be imported here.
"""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Load:
    """What there is to do, of the whole deployment."""

    work: float
    """Steps of interactive work, queued and running."""
    batch_work: float
    """The same of batch work."""
    rate: float
    """Steps that a replica makes a second, on average; 0 where none was measured yet."""
    waiting: float = 0.0
    """Requests that no replica has accepted yet."""
    requests: float = 0.0
    """Requests that are anywhere."""


LOOKS = 0.05
"""Requests at a time, on average, below which they are no drawing: an open page asks for /status again and again."""


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What the policy aims at."""

    drain_s: float = 10.0
    """Interactive work that is there now should be done in so many seconds."""
    batch_drain_s: float = 120.0
    """The same of batch work."""
    slack: float = 0.3
    """Replicas go only when those that stay would be below this share of full beneath the aim: no to and fro."""
    request_steps: float = 20.0
    """What a request that no replica has accepted yet is taken to be."""

    def __post_init__(self) -> None:
        if self.drain_s <= 0 or self.batch_drain_s <= 0:
            raise ValueError(f"work is to be done in {self.drain_s} s and {self.batch_drain_s} s: give more than 0")
        if not 0 <= self.slack < 1:
            raise ValueError(f"slack {self.slack}: give a share from 0 to below 1")


@dataclass(frozen=True)
class Scale:
    """There should be so many replicas."""

    replicas: int
    why: str


def desired(load: Load, now: int, aim: Aim) -> Scale:
    """Return how many replicas there should be where `now` is how many there are; bounds and delays are Serve's.

    ceil((work / drain_s + batch_work / batch_drain_s) / rate). From 0 the first request makes one; the last one goes
    only when there is no request anywhere. Without a measured rate nothing is added to what is starting.
    """
    if load.requests < LOOKS and not (load.waiting or load.work or load.batch_work):
        return Scale(0, "nothing to do")
    if not load.rate:
        return Scale(max(1, now), "the speed of a replica is not known yet")
    work = load.work + load.waiting * aim.request_steps
    needed = (work / aim.drain_s + load.batch_work / aim.batch_drain_s) / load.rate
    up = max(1, math.ceil(needed))
    why = f"{work:.0f} + {load.batch_work:.0f} steps at {load.rate:.1f} a second for each replica"
    if up >= now:
        return Scale(up, why)
    return Scale(min(now, max(1, math.ceil(needed / (1 - aim.slack)))), why)


class WorkPolicy:
    """Serve's autoscaling policy: reads what the replicas record (serve/replica.py) and what waits at the handles."""

    def __init__(self, **aim: float) -> None:
        self._aim = Aim(**aim)
        self._rate = 0.0

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Return the replicas that there should be, and no state of Serve's keeping."""
        load = load_of(context, self._rate)
        self._rate = load.rate
        return desired(load, context.target_num_replicas, self._aim).replicas, {}


def load_of(context: Any, rate: float) -> Load:
    """Return the load that an AutoscalingContext tells of; rate is the last one known."""
    metrics = context.aggregated_metrics or {}
    rates = [rate for rate in metrics.get("rate", {}).values() if rate]
    return Load(
        work=sum(metrics.get("work", {}).values()),
        batch_work=sum(metrics.get("batch_work", {}).values()),
        rate=sum(rates) / len(rates) if rates else rate,
        waiting=context.total_queued_requests or 0.0,
        requests=context.total_num_requests or 0.0,
    )
