"""Recipes of the load test, the fault drill and the soak of the endpoint (ssd1b/trials/load)."""

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
    window_s: float = 20.0
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


@dataclass(frozen=True, kw_only=True)
class ServeSoak:
    """Our endpoint through a bad day: champions, adapters and processes change under real clients. See
    trials/load/soak.py."""

    student: str = "ssd-1b"
    """The shape that every version is carved to, not trained."""
    teachers: tuple[str, ...] = ("nano", "nano+retro", "nano+poster")
    """What the versions are carved from, one each: their pictures differ visibly."""
    backend: str = "auto"
    """Of the endpoint, and of the idle engine that draws its pictures again."""
    replicas: int = 2
    adapters: int = 1000
    """In the folder that the endpoint is given."""
    registered: int = 6
    """Adapters in the registry instead, as popular as the first of the folder."""
    exponent: float = 1.0
    """Of Zipf's law, by which adapters are popular."""
    plain_share: float = 0.25
    """Of the requests want no adapter."""
    steps: tuple[tuple[int, float], ...] = ((4, 0.3), (8, 0.4), (20, 0.3))
    """Denoising steps, and their weights; Segmind's route begins at 20."""
    callers: tuple[str, ...] = (
        "openai", "openai", "openai stream", "openai edit", "huggingface", "replicate", "a1111", "segmind",
    )  # fmt: skip
    """One who asks again as soon as it is answered, by the client of a dialect, for each."""
    seconds: float = 200.0
    """How long they call at least, and over which what happens is spread; a slow machine takes longer."""
    moves: int = 10
    """Of the champion; one of them through a canary, one of them a rollback."""
    follow_s: float = 60.0
    """The next move waits for the first picture of the last one's version, but not longer."""
    canary_share: float = 0.3
    kills: int = 4
    """Of replicas, with SIGKILL."""
    controller_kills: int = 1
    changes: int = 24
    """Adapters added, replaced and removed, in turns."""
    grace_s: float = 10.0
    """After a change of an adapter, what was on offer before may still be drawn or refused for so long."""
    patience_s: float = 120.0
    """After so long without an answer a request counts as lost."""
    compared: int = 96
    """Pictures that an idle engine draws again, at least."""
    bound_db: float = 40.0
    """Below it a picture counts as altered by the load; bfloat16 rounds otherwise in other batches, and may."""
    another_db: float = 25.0
    """Below it a picture is another picture, and the run has failed."""
    threads: int = 1
    """Of each engine."""
    scratch: str = ""
    """Where everything lies for as long as it runs; "" is the system's temporary folder."""
    kept: str = ""
    """Folder for what remains: logs, and pairs of pictures that should be alike and are not; "" keeps nothing."""
    seed: int = 0


def serve() -> ServeLoad:
    """Ours against three others at five rates: about thirteen minutes on two quiet cores."""
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


def serve_soak() -> ServeSoak:
    """Ten champions, four dead replicas, a dead controller and two dozen adapters that change, under the clients of all
    dialects: about six minutes."""
    return ServeSoak()


def serve_soak_smoke() -> ServeSoak:
    """Three champions, a dead replica and a few adapters: about two minutes."""
    return ServeSoak(
        teachers=("nano", "nano+retro"), adapters=40, registered=2, steps=((2, 0.5), (4, 0.5)), seconds=50.0, moves=3,
        kills=1, controller_kills=0, changes=6, compared=24,
    )  # fmt: skip


Served = ServeLoad | ServeFaults | ServeSoak
RECIPES: dict[str, Callable[[], Served]] = {
    "serve": serve,
    "serve_smoke": serve_smoke,
    "serve_faults": serve_faults,
    "serve_faults_smoke": serve_faults_smoke,
    "serve_soak": serve_soak,
    "serve_soak_smoke": serve_soak_smoke,
}
