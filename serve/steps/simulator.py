"""Policies on paper: arrivals replayed against the scheduler and the admission that serve, and against what others do.

No model, no thread, no clock: a step takes what a formula says, so that a minute of load is played in a moment and
equal traces give equal numbers. `python -m serve.steps.simulator` prints the comparison that the defaults were chosen
by.
"""

import heapq
import math
import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from serve.adapters.admission import Admission
from serve.adapters.residency import Load
from serve.request import Priority
from serve.steps.pace import Pace
from serve.steps.scheduler import Idle, Limits, Need, Scheduler
from ssd1b.command import show


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A request of one picture."""

    at: float
    """Seconds since the beginning."""
    steps: int
    group: Hashable = "square"
    adapter: str | None = None
    priority: Priority = "interactive"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What things take, seconds. As measured on one H100-class engine they would be other numbers of the same shape."""

    step_s: float = 0.020
    """Of a step, however few its rows."""
    row_s: float = 0.006
    """Of each row more."""
    adapted: float = 1.15
    """How many times as long a step takes with side paths."""
    swap_s: float = 0.050
    """From the decision on a slot to its being ready; steps go on meanwhile."""
    buckets: tuple[int, ...] = ()
    """Batch sizes that an engine was built for: others are padded. () is any."""

    def step(self, rows: int, adapted: bool) -> float:
        """Return the time of a step."""
        padded = next((bucket for bucket in self.buckets if bucket >= rows), rows)
        return (self.step_s + self.row_s * padded) * (self.adapted if adapted else 1)


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What a trace is drawn from."""

    rate: float
    """Requests a second, by Poisson."""
    seconds: float = 120.0
    seed: int = 0
    steps: tuple[int, ...] = (8, 20, 30)
    odd: float = 0.1
    """Share of requests of another size."""
    adapted: float = 0.7
    """Share of requests with an adapter."""
    adapters: int = 1000
    zipf: float = 1.0
    """Of an adapter's rank in popularity, the power that its share falls with."""
    slow: float = 0.0
    """Share of batch work."""

    def trace(self) -> list[Arrival]:
        """Return the arrivals."""
        chance, at, arrivals = random.Random(self.seed), 0.0, list[Arrival]()
        weights = [1 / rank**self.zipf for rank in range(1, self.adapters + 1)]
        while (at := at + chance.expovariate(self.rate)) < self.seconds:
            number = chance.choices(range(self.adapters), weights)[0]
            arrivals.append(
                Arrival(
                    at=at,
                    steps=chance.choice(self.steps),
                    group="odd" if chance.random() < self.odd else "square",
                    adapter=f"lora-{number}" if chance.random() < self.adapted else None,
                    priority="batch" if chance.random() < self.slow else "interactive",
                )
            )
        return arrivals


@dataclass(frozen=True)
class Done:
    """A request that was answered."""

    arrival: Arrival
    at: float
    gap: float
    """The longest it waited for its first or its next step, seconds."""

    @property
    def latency(self) -> float:
        return self.at - self.arrival.at


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Step by step: how rows are scheduled and requests admitted; the two classes are those that serve."""

    limits: Limits
    slots: int = 9
    ahead: int = 4
    """Batches of rows that have begun, at most."""
    paced: bool = True


def by_steps(trace: Sequence[Arrival], cost: Cost, policy: Policy) -> list[Done]:
    """Return how the requests fare where rows join and leave batches at every step."""
    scheduler: Scheduler[int] = Scheduler(policy.limits, Pace() if policy.paced else None)
    admission: Admission[int] = Admission(policy.ahead * policy.limits.rows, policy.slots)
    now, came, done = 0.0, 0, list[Done]()
    uploads: list[tuple[float, str, int]] = []
    moved, gaps = dict[int, float](), dict[int, float]()

    def begin(ticket: int) -> None:
        arrival = trace[ticket]
        need = Need(group=arrival.group, steps=arrival.steps, adapted=arrival.adapter is not None)
        scheduler.add(ticket, need, arrival.priority)

    while len(done) < len(trace):
        while came < len(trace) and trace[came].at <= now:
            admission.join(came, 1, trace[came].adapter, trace[came].priority)
            moved[came], gaps[came] = trace[came].at, 0.0
            came += 1
        while uploads and uploads[0][0] <= now:
            _, key, ticket = heapq.heappop(uploads)
            admission.loaded(key)
            begin(ticket)
        for admit in admission.decide():
            if isinstance(admit.seat, Load):
                assert admit.key is not None
                heapq.heappush(uploads, (now + cost.swap_s, admit.key, admit.ticket))
            else:
                begin(admit.ticket)
        step = scheduler.next()
        if isinstance(step, Idle):
            now = min([upload[0] for upload in uploads[:1]] + [arrival.at for arrival in trace[came : came + 1]])
            continue
        seconds = cost.step(len(step.rows), any(trace[row].adapter for row in step.rows))
        now += seconds
        for row in step.rows:
            gaps[row], moved[row] = max(gaps[row], now - seconds - moved[row]), now
        for row in scheduler.made(step.rows, seconds):
            done.append(Done(trace[row], now, gaps[row]))
            admission.leave(row)
    return done


def by_batches(trace: Sequence[Arrival], cost: Cost, rows: int = 8, wait_s: float = 0.05) -> list[Done]:
    """Return how they fare where a batch of one adapter, one size and one number of steps is drawn to its end.

    So `@serve.batch` with `@serve.multiplexed` works, and every server that calls a pipeline with a list of prompts. A
    batch whose adapter differs from the last one's takes a swap longer.
    """
    now, came, worn, done = 0.0, 0, None, list[Done]()
    queue: list[Arrival] = []
    while len(done) < len(trace):
        while came < len(trace) and trace[came].at <= now:
            queue.append(trace[came])
            came += 1
        if not queue:
            now = trace[came].at
            continue
        first = queue[0]
        alike = [
            one for one in queue if (one.group, one.adapter, one.steps) == (first.group, first.adapter, first.steps)
        ]
        if len(alike) < rows and now < first.at + wait_s:
            now = min([first.at + wait_s] + [arrival.at for arrival in trace[came : came + 1]])
            continue
        batch = alike[:rows]
        queue = [one for one in queue if one not in batch]
        began = now
        now += cost.swap_s if first.adapter not in (None, worn) else 0.0
        worn = first.adapter or worn
        now += first.steps * cost.step(len(batch), first.adapter is not None)
        done += [Done(one, now, began - one.at) for one in batch]
    return done


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a policy comes to."""

    images_per_s: float
    p50: float
    p99: float
    goodput: float
    """Requests a second answered within `slo` times what they take alone."""
    p99_short: float
    """99 % of the requests of the fewest steps."""
    p99_odd: float
    """Of the size that is rare."""
    gap: float
    """The longest that any request waited for a step, seconds."""


def score(done: Sequence[Done], cost: Cost, slo: float = 5.0) -> Score:
    """Return the numbers of a replay."""
    latencies = sorted(one.latency for one in done)
    span = max(one.at for one in done) - min(one.arrival.at for one in done)
    alone = {one: one.arrival.steps * cost.step(1, one.arrival.adapter is not None) for one in done}
    fewest = min(one.arrival.steps for one in done)
    odd = [one.latency for one in done if one.arrival.group == "odd"]
    return Score(
        images_per_s=len(done) / span,
        p50=quantile(latencies, 0.5),
        p99=quantile(latencies, 0.99),
        goodput=sum(one.latency <= slo * alone[one] for one in done) / span,
        p99_short=quantile(sorted(one.latency for one in done if one.arrival.steps == fewest), 0.99),
        p99_odd=quantile(sorted(odd), 0.99),
        gap=max(one.gap for one in done),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the least value that so large a share does not exceed (nearest rank); nan of none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


Run = Callable[[Sequence[Arrival], Cost], list[Done]]
DUE_FIRST = Policy(limits=Limits(rows=8))
"""What serves."""
OLDEST_FIRST = Policy(limits=Limits(rows=8, slack=0, patience=10**9, batch_delay=0), paced=False)
"""Order of arrival, and nothing against long waits of a rare size."""
POLICIES: dict[str, Run] = {
    "one at a time": lambda trace, cost: by_batches(trace, cost, rows=1, wait_s=0.0),
    "batch, then run": by_batches,
    "by steps, oldest first": lambda trace, cost: by_steps(trace, cost, OLDEST_FIRST),
    "by steps, due first (ours)": lambda trace, cost: by_steps(trace, cost, DUE_FIRST),
}


def main() -> None:
    """Print how the policies fare at several rates."""
    cost = Cost()
    best = 8 / cost.step(8, True) / 20
    show(f"step of one row {cost.step(1, False) * 1e3:.0f} ms, of eight {cost.step(8, False) * 1e3:.0f} ms; "
         f"with side paths {cost.adapted} times that; 1000 adapters by Zipf, 8 slots; steps 8, 20, 30; 10 % of another "
         f"size; full batches would make {best:.1f} images/s")  # fmt: skip
    head = ("policy", "images/s", "goodput", "p50 s", "p99 s", "p99 8 steps", "p99 rare size", "longest wait")
    for share in (0.3, 0.6, 0.8, 1.0):
        trace = Traffic(rate=share * best).trace()
        show(f"\n{share * best:.1f} requests/s, {share:.0%} of that: {len(trace)} requests")
        show("".join(f"{name:>{28 if i == 0 else 14}}" for i, name in enumerate(head)))
        for name, run in POLICIES.items():
            got = score(run(trace, cost), cost)
            numbers = (got.images_per_s, got.goodput, got.p50, got.p99, got.p99_short, got.p99_odd, got.gap)
            show(f"{name:>28}" + "".join(f"{number:14.2f}" for number in numbers))


if __name__ == "__main__":
    main()
