"""jobs.benchmark serve_faults: the endpoint is hurt in every way there is, under load, and what that cost is counted.

Our endpoint as anybody would start it, with two engine replicas and accounts. Around each fault callers, each with an
account of its own, ask for pictures; afterwards their requests are held against the ledger, and pictures whose requests
were under way when it happened are asked for again from the endpoint at rest.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssd1b.command import show
from ssd1b.provenance import machine
from ssd1b.recipes.serving import ServeFaults
from ssd1b.trials.load.callers import Caller, Load, calling
from ssd1b.trials.load.contestants import ours, running
from ssd1b.trials.load.driver import picture, psnr
from ssd1b.trials.load.harm import FAULTS, Endpoint, raise_limit
from ssd1b.trials.load.stand import MODEL, Stand, prepare, prompts
from ssd1b.trials.load.toll import Call, Toll, charges, toll, unpaid
from ssd1b.trials.load.trace import Ask, Mix, at_once, endless
from ssd1b.trials.recovery import table

CREDITS = "100000"
PROMPTS = 64
COMPARED = 4
"""Pictures of each fault that are asked for again, at most."""
SUMMED = ("sent", "answered", "failed", "lost", "errors", "charged_twice", "charged_for_nothing")
SETTLED_S = 5.0
"""How long the ledger is given after the last answer: a charge may be captured after its client has gone."""


@dataclass(frozen=True, kw_only=True)
class Suffered:
    """One fault."""

    fault: str
    proof: str
    toll: Toll
    compared: int
    worst_psnr_db: float | None
    """Of what was drawn around the fault, against the endpoint at rest; None where all pictures are equal."""
    unpaid: int
    """Pictures that were delivered and not charged."""


def drill(config: ServeFaults) -> dict[str, Any]:
    """Run the faults of a recipe in order, print what each cost, and return it.

    Raises:
        ValueError: no such fault or student.
        RuntimeError: a fault did not happen, or the endpoint did not come back.
    """
    if unknown := [name for name in config.faults if name not in FAULTS]:
        raise ValueError(f"no fault {unknown[0]!r}: choose from {', '.join(FAULTS)}")
    limit = raise_limit(config.connections)
    with tempfile.TemporaryDirectory(prefix="drill-", dir=config.scratch or None) as folder:
        scratch = Path(folder)
        stand = prepare(scratch, config.student, config.adapters, config.seed)
        environment = {
            "SSD1B_HOME": str(stand.home), "MLFLOW_TRACKING_URI": "", "OMP_NUM_THREADS": str(config.threads),
            "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0",
        }  # fmt: skip
        callers = [opened(f"caller-{n}", config, environment) for n in range(config.clients)]
        stranger = opened("stranger", config, environment)
        hurt = ours(model=MODEL, min_replicas=config.replicas, max_replicas=config.replicas)
        mix = mix_of(config, stand)
        first = at_once(mix, 1, config.seed)[0]
        with running(hurt, scratch, environment, first, stranger.headers(first)) as server:
            endpoint = Endpoint(server=server, home=stand.home, key=stranger.key, connections=config.connections)
            suffered = [suffer(config, endpoint, callers, mix, name, n) for n, name in enumerate(config.faults)]
    return told(suffered, limit)


def mix_of(config: ServeFaults, stand: Stand) -> Mix:
    return Mix(
        prompts=prompts(PROMPTS, config.seed),
        adapters=stand.names,
        plain_share=0.5,
        steps=((config.steps, 1.0),),
        sizes=stand.sizes,
    )


def opened(name: str, config: ServeFaults, environment: Mapping[str, str]) -> Caller:
    """Open an account with a key, as an operator does."""

    def accounts(*arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "serve.accounts", *arguments, "--json"],
            env={**os.environ, **environment}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"serve.accounts {' '.join(arguments)}: {done.stderr[-1000:]}")
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return said

    accounts("add", name, "--credits", CREDITS)
    key = accounts("key", name)["key"]
    return Caller(account=name, key=key, retries=config.retries, patience_s=config.patience_s)


# ---- one fault


def suffer(
    config: ServeFaults, endpoint: Endpoint, callers: Sequence[Caller], mix: Mix, name: str, number: int
) -> Suffered:
    """Let callers call, do it, let them go on until all are served again, and return what it cost."""
    began = time.time()
    first = config.seed + 1 + number * len(callers)
    asks = {caller: endless(mix, first + i) for i, caller in enumerate(callers)}
    with calling(endpoint.server.url, asks) as load:
        time.sleep(config.before_s)
        happened = time.time()
        proof = FAULTS[name](endpoint)
        over = time.time()
        time.sleep(config.after_s)
        served_again(load, callers, over, config.patience_s)
    time.sleep(SETTLED_S)
    calls = [call for call, _ in load.calls]
    captured = [one for one in charges(endpoint.home / "accounts.db", began) if one.account.startswith("caller-")]
    under_way = [pair for pair in load.calls if pair[0].outcome == "answered" and during(pair[0], happened)]
    worst = compared(endpoint, [ask for _, ask in under_way[:COMPARED]], load)
    found = Suffered(
        fault=name,
        proof=proof,
        toll=toll(calls, captured),
        compared=min(COMPARED, len(under_way)),
        worst_psnr_db=worst,
        unpaid=unpaid(calls, captured),
    )
    show(f"{name}: {proof}; {found.toll}")
    for error, count in errors_of(calls).items():
        show(f"  {count} x {error}")
    return found


def during(call: Call, moment: float) -> bool:
    return call.began <= moment <= call.ended


def served_again(load: Load, callers: Sequence[Caller], since: float, patience_s: float) -> None:
    """Wait until every caller has a picture that it asked for after the fault."""
    end = time.monotonic() + patience_s
    while missing := {caller.account for caller in callers} - load.since(since):
        if time.monotonic() > end:
            raise RuntimeError(f"{len(missing)} callers had no picture in {patience_s:g} s after the fault")
        time.sleep(0.2)


def compared(endpoint: Endpoint, asks: Sequence[Ask], load: Load) -> float | None:
    """Return the worst PSNR of pictures that were drawn around the fault to the same ones drawn at rest."""
    headers = {"authorization": f"Bearer {endpoint.key}"}
    found = [psnr(load.pictures[ask.seed], picture(endpoint.server.url, ask, headers)) for ask in asks]
    unlike = [one for one in found if one is not None]
    return min(unlike) if unlike else None


def errors_of(calls: Sequence[Call]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for call in calls:
        for error in call.errors:
            counted[error] = counted.get(error, 0) + 1
    return counted


# ---- what is told


def told(suffered: Sequence[Suffered], limit: int) -> dict[str, Any]:
    """Print a line for each fault and return everything."""
    lines = [{"fault": one.fault, **{name.replace("_", " "): str(value) for name, value in asdict(one.toll).items()},
              "unpaid": str(one.unpaid), "worst PSNR": str(one.worst_psnr_db or "equal") if one.compared else "-"}
             for one in suffered]  # fmt: skip
    for line in table(lines):
        show(line)
    sums = {name: sum(getattr(one.toll, name) for one in suffered)
            for name in SUMMED}  # fmt: skip
    return {
        "machine": machine(["ray", "torch", "openvino"]),
        "open_files": limit,
        **sums,
        "faults": [asdict(one) for one in suffered],
    }
