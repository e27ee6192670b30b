"""Recipes of the load test and the fault drill of the endpoint (ssd1b/trials/load)."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ServeLoad:
    """Our endpoint and three others under the same requests, one server at a time. See trials/load/contest.py."""

    student: str = "ssd-1b"
    """A shape that the nano teacher is carved to, not trained: time does not depend on it. Or a folder, or a registry
    uri."""
    contestants: tuple[str, ...] = ("ours", "one at a time", "batch, then run", "plain diffusers")
    adapters: int = 16
    """Twice as many as a bank has room for."""
    exponent: float = 1.0
    """Of Zipf's law, by which adapters are popular."""
    plain_share: float = 0.25
    """Of the requests want no adapter."""
    steps: tuple[tuple[int, float], ...] = ((8, 0.3), (20, 0.5), (30, 0.2))
    """Denoising steps, and their weights."""
    threads: int = 1
    """Of each engine, torch or OpenVINO. The client needs a core too."""
    rows: int = 8
    """Pictures of a batch at most, for all that batch."""
    wait_s: float = 0.05
    """How long Ray Serve's batching waits for more."""
    unloaded: int = 12
    """Requests one after the other."""
    callers: int = 24
    """Who ask again at once, for saturation."""
    saturate_s: float = 14.0
    ramp_s: float = 4.0
    """Of these, until counting begins."""
    shares: tuple[float, ...] = (0.3, 0.6, 0.8, 1.0)
    """Poisson rates, as shares of what saturates ours."""
    knee: float = 0.8
    """A further rate for each of the others, as a share of what saturates it."""
    window_s: float = 16.0
    """How long requests arrive, at each rate."""
    drain_s: float = 5.0
    """How long after that answers count at least."""
    slo: float = 5.0
    """Latency bound, in unloaded latencies of a 20-step request on the fastest contestant."""
    scratch: str = ""
    """Where the model, the registry and the logs lie for as long as it runs; "" is the system's temporary folder."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class ServeFaults:
    """What is done to our endpoint under load, in order. See trials/load/drill.py."""

    faults: tuple[str, ...] = (
        "none", "replica", "replicas", "ingress", "controller", "proxy", "registry", "accounts", "slow_bodies",
        "huge_bodies", "malformed", "idle_connections", "path_tricks", "private_urls",
    )  # fmt: skip
    student: str = "ssd-1b"
    adapters: int = 4
    replicas: int = 2
    clients: int = 6
    """Callers, each with an account of its own, who ask again as soon as they are answered."""
    steps: int = 20
    before_s: float = 3.0
    """Of load before each fault."""
    after_s: float = 12.0
    """Of load after it, at least; then until every caller has had an answer since."""
    patience_s: float = 150.0
    """After so long without an answer a request counts as lost."""
    retries: int = 4
    """How often a client asks again after a broken connection or a 5xx, as SDKs do (openai: twice by default)."""
    connections: int = 10_000
    threads: int = 1
    scratch: str = ""
    """Where the model, the registry, the accounts and the logs lie for as long as it runs."""
    seed: int = 0


def serve() -> ServeLoad:
    """Ours against three others at five rates: about twelve minutes on two quiet cores."""
    return ServeLoad()


def serve_smoke() -> ServeLoad:
    """The same way with a few requests, against one other: proves the way, measures nothing worth knowing."""
    return ServeLoad(
        contestants=("ours", "one at a time"), adapters=3, unloaded=3, callers=8, saturate_s=4.0, ramp_s=1.0,
        shares=(0.5,), window_s=4.0, steps=((4, 0.5), (8, 0.5)),
    )  # fmt: skip


def serve_faults() -> ServeFaults:
    """Kill, lock, flood and trick the endpoint in every way there is: about ten minutes."""
    return ServeFaults()


def serve_faults_smoke() -> ServeFaults:
    """A killed replica, a lost registry and bad requests, under a few callers."""
    return ServeFaults(
        faults=("replica", "malformed", "path_tricks", "private_urls", "idle_connections"), adapters=2, clients=3,
        steps=8, before_s=2.0, after_s=3.0, connections=200,
    )  # fmt: skip


RECIPES: dict[str, Callable[[], ServeLoad | ServeFaults]] = {
    "serve": serve,
    "serve_smoke": serve_smoke,
    "serve_faults": serve_faults,
    "serve_faults_smoke": serve_faults_smoke,
}
