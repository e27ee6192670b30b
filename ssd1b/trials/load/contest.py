"""jobs.benchmark serve: our endpoint against three others, under the same requests on the same machine.

One server at a time, alone but for the client; same student, same adapters, same threads. Each is timed unloaded, then
saturated, then at Poisson rates with adapters by Zipf's law. Ours comes first, since its saturation sets the rates.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from ssd1b.command import show
from ssd1b.provenance import machine
from ssd1b.recipes.serving import ServeLoad
from ssd1b.trials.load.contestants import NULL, OURS, Contestant, Server, contestants, running
from ssd1b.trials.load.driver import Crowd, busy, in_turn, picture, psnr, replay, require
from ssd1b.trials.load.report import DISCLAIMER, Answer, Report, percentile, rate_within, report, rows
from ssd1b.trials.load.stand import Stand, prepare, prompts
from ssd1b.trials.load.trace import Mix, at_once, endless, poisson
from ssd1b.trials.recovery import table

PROMPTS = 64
SLO_STEPS = 20
"""The request whose unloaded latency sets the latency bound."""
LOAD_OF_GOAL = 0.8


@dataclass
class Measured:
    """What was found out about a contestant."""

    unloaded: Sequence[Answer]
    pictures_per_s: float
    """At saturation."""
    row_steps_per_s: float
    runs: dict[str, tuple[float, Sequence[Answer]]] = field(default_factory=dict)
    """Share of our saturation, or "knee" -> the rate, and what became of its requests."""
    picture_HW3: NDArray[np.uint8] | None = None
    more: dict[str, Any] = field(default_factory=dict)

    def unloaded_s(self, steps: int | None = None) -> float:
        """Return the median latency of the requests that came alone, all of them or those of so many steps."""
        return statistics.median(one.latency_s for one in self.unloaded if steps in (None, one.steps))


def contest(config: ServeLoad) -> dict[str, Any]:
    """Run it, print a table per rate, and return the same numbers.

    Raises:
        ValueError: no such student or contestant, or ours is not among them.
        RuntimeError: a contestant does not come up, or fails requests that nothing was to hinder.
    """
    if config.contestants[:1] != (OURS,):
        raise ValueError(f"contestants={list(config.contestants)}: the first must be {OURS!r}, which sets the rates")
    with tempfile.TemporaryDirectory(prefix="load-", dir=config.scratch or None) as folder:
        scratch = Path(folder)
        stand = prepare(scratch, config.student, config.adapters, config.seed)
        environment = surroundings(stand, config.threads)
        mix = mix_of(config, stand)
        own = client_cost(config, scratch, environment, mix)
        bare = bare_engine(config, stand, environment)
        found: dict[str, Measured] = {}
        for contestant in chosen(config, stand):
            sets = found[OURS].pictures_per_s if found else None
            found[contestant.name] = measure(config, contestant, scratch, environment, mix, sets)
    return told(config, mix, found, bare, own)


def chosen(config: ServeLoad, stand: Stand) -> list[Contestant]:
    there = {one.name: one for one in contestants(stand, config.rows, config.wait_s)}
    if unknown := [name for name in config.contestants if name not in there]:
        raise ValueError(f"no contestant {unknown[0]!r}: choose from {', '.join(there)}")
    return [there[name] for name in config.contestants]


def surroundings(stand: Stand, threads: int) -> dict[str, str]:
    """Return the environment of every contestant."""
    return {
        "SSD1B_HOME": str(stand.home),
        "MLFLOW_TRACKING_URI": "",
        "OMP_NUM_THREADS": str(threads),
        "RAY_AUTH_MODE": "disabled",  # loopback, and one process tree
        "RAY_worker_niceness": "0",  # else Ray's workers, unlike the others, yield to the client
    }


def mix_of(config: ServeLoad, stand: Stand) -> Mix:
    return Mix(
        prompts=prompts(PROMPTS, config.seed),
        adapters=stand.names,
        exponent=config.exponent,
        plain_share=config.plain_share,
        steps=config.steps,
        sizes=stand.sizes,
    )


# ---- one contestant


def measure(
    config: ServeLoad,
    contestant: Contestant,
    scratch: Path,
    environment: Mapping[str, str],
    mix: Mix,
    ours_per_s: float | None,
) -> Measured:
    """Start a contestant, ask it for all there is to know, and end it; ours_per_s is None for ours."""
    first = at_once(replace(mix, plain_share=0.0), 1, config.seed)[0]
    with running(contestant, scratch, environment, replace(first, adapter=None)) as server:
        warm(config, server, mix)
        drawn_HW3 = picture(server.url, first)
        unloaded = require(in_turn(server.url, at_once(mix, config.unloaded, config.seed)))
        (answers,) = busy(server.url, config.saturate_s, Crowd(endless(mix, config.seed + 1), config.callers))
        require(answers)
        pictures, steps = rate_within(answers, config.ramp_s, config.saturate_s)
        found = Measured(unloaded, pictures, steps, picture_HW3=drawn_HW3)
        slow = found.unloaded_s()
        show(f"{contestant.name}: unloaded median {slow:.2f} s; saturated {pictures:.2f} pictures/s, {steps:.1f} "
             f"row-steps/s")  # fmt: skip
        if pictures == 0:
            raise RuntimeError(f"{contestant.name} finished nothing in {config.saturate_s} s: raise saturate_s")
        if ours_per_s is None:
            found.more = on_status_page(server)
        rates = {f"{share:g}": share * (ours_per_s or pictures) for share in config.shares}
        rates |= {} if ours_per_s is None else {"knee": config.knee * pictures}
        for number, (name, rate) in enumerate(rates.items()):
            require(in_turn(server.url, [first]))  # whoever waits in line comes after what was given up before
            asks = poisson(mix, rate, config.window_s, config.seed + 100 + number)
            found.runs[name] = rate, replay(server.url, asks, max(config.drain_s, config.slo * slow))
    return found


def warm(config: ServeLoad, server: Server, mix: Mix) -> None:
    """Have it draw, one by one and together, so that nothing is done for the first time while it is timed."""
    require(in_turn(server.url, at_once(mix, 2, config.seed + 2)))
    together = at_once(replace(mix, steps=((4, 1.0),)), 2 * config.rows, config.seed + 3)
    require(replay(server.url, together, patience_s=300.0))


def on_status_page(server: Server) -> dict[str, float]:
    """Return the rate that our endpoint's one replica tells of itself."""
    (replica,) = httpx.get(f"{server.url}/status", timeout=60).json()["replicas"]
    return {"status_row_steps_per_s": replica["row_steps_per_s"]}


# ---- what they are measured by


def client_cost(config: ServeLoad, scratch: Path, environment: Mapping[str, str], mix: Mix) -> dict[str, float | None]:
    """Return what client and HTTP cost: latencies of a server that does nothing, at the rates of the contest."""
    asks = poisson(mix, 10.0, 4.0, config.seed)
    with running(NULL, scratch, environment, asks[0]) as server:
        found = report(replay(server.url, asks, config.drain_s), 4.0, slo_s=1.0)
    show(f"the client and HTTP alone: median {found.p50_s} s, 99th percentile {found.p99_s} s")
    return {"p50_s": found.p50_s, "p99_s": found.p99_s, "late_p99_ms": found.late_p99_ms}


def bare_engine(config: ServeLoad, stand: Stand, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what the engine does with nothing around it (bare_engine.py)."""
    done = subprocess.run(
        [sys.executable, "-m", "ssd1b.trials.load.bare_engine", "--port", "0", "--model", str(stand.bundle),
         "--adapters", str(stand.adapters), "--rows", str(config.rows)],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the engine alone does not run: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    best = max(found["row_steps_per_s"].values())
    show(f"the engine alone: {best:.1f} row-steps/s at best, by pictures in a batch: {found['row_steps_per_s']}")
    show(f"swaps beside its steps: {found['swap']}")
    return {**found, "best": best}


# ---- what is told


def told(
    config: ServeLoad, mix: Mix, found: Mapping[str, Measured], bare: Mapping[str, Any], own: Mapping[str, Any]
) -> dict[str, Any]:
    """Print the tables and return everything."""
    ours = found[OURS]
    slo_steps = SLO_STEPS if any(steps == SLO_STEPS for steps, _ in config.steps) else config.steps[-1][0]
    fastest = min(found, key=lambda name: found[name].unloaded_s(slo_steps))
    slo_s = config.slo * found[fastest].unloaded_s(slo_steps)
    show(f"\n{DISCLAIMER}. SLO: {slo_s:.2f} s, {config.slo:g} x the unloaded {slo_steps}-step request of {fastest}.")
    reports = {
        name: {run: report(answers, config.window_s, slo_s) for run, (_, answers) in one.runs.items()}
        for name, one in found.items()
    }
    for run in [f"{share:g}" for share in config.shares] + ["knee"]:
        of_run = {name: by_run[run] for name, by_run in reports.items() if run in by_run}
        if of_run:
            heading = "each at its own knee" if run == "knee" else f"at {run} of what saturates ours"
            show(f"\n{heading} ({ours.pictures_per_s:.2f} pictures/s)")
            for line in table(rows(of_run)):
                show(line)
    ratios = over(reports)
    show(f"\ngoodput of ours over theirs: {ratios}")
    near = reports[OURS].get(f"{LOAD_OF_GOAL:g}")
    goals = {
        "p50_at_80_percent_over_unloaded": round(near.p50_s / ours.unloaded_s(), 3) if near and near.p50_s else None,
        "saturated_over_bare_engine": round(ours.row_steps_per_s / bare["best"], 3),
        "swap_stall_steps": bare["swap"]["worst_stall_steps"],
        "best_goodput_over": ratios.get("best"),
    }
    show(f"{goals}")
    return {
        "kind": DISCLAIMER,
        "machine": machine(["ray", "torch", "openvino"]),
        "mean_steps": mix.mean_steps,
        "slo_s": round(slo_s, 3),
        "goals": goals,
        "goodput_of_ours_over": ratios,
        "client": own,
        "bare_engine": bare,
        "contestants": {name: summary(one, reports[name], ours) for name, one in found.items()},
    }


def summary(one: Measured, reports: Mapping[str, Report], ours: Measured) -> dict[str, Any]:
    assert one.picture_HW3 is not None
    assert ours.picture_HW3 is not None
    alone = sorted(answer.latency_s for answer in one.unloaded)
    return {
        "unloaded_s": {"p50": round(one.unloaded_s(), 4), "p90": round(percentile(alone, 90), 4)},
        "saturated": {"pictures_per_s": round(one.pictures_per_s, 3), "row_steps_per_s": round(one.row_steps_per_s, 2)},
        "psnr_to_ours_db": psnr(one.picture_HW3, ours.picture_HW3),
        "rates": {run: asdict(each) for run, each in reports.items()},
        **one.more,
    }


def over(reports: Mapping[str, Mapping[str, Report]]) -> dict[str, dict[str, float | None]]:
    """Return our goodput over that of each other, by rate and of the best rate of each; None where theirs is 0."""

    def ratio(ours: float, theirs: float) -> float | None:
        return round(ours / theirs, 2) if theirs else None

    ours = reports[OURS]
    others = {name: by_run for name, by_run in reports.items() if name != OURS}
    found = {
        run: {name: ratio(mine.goodput_per_s, by_run[run].goodput_per_s) for name, by_run in others.items()}
        for run, mine in ours.items()
    }
    best = {name: max(each.goodput_per_s for each in by_run.values()) for name, by_run in reports.items()}
    return found | {"best": {name: ratio(best[OURS], best[name]) for name in others}}
