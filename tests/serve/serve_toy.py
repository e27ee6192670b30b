"""The toy model on a real Serve: what the tests of routing and of the replica's hooks deploy."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import serve
from toy_painter import ToyAdapters, ToyPainter

from serve.model import Fixed
from serve.replica import Replica

HERE = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])


class OpenToy:
    """Opens a toy painter of so many seconds a step."""

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s

    def __call__(self) -> tuple[ToyPainter, ToyAdapters]:
        return ToyPainter(step_s=self.step_s), ToyAdapters()


@contextmanager
def deployed(
    name: str, step_s: float, batch_rows: int = 4, env: dict[str, str] | None = None, **options: Any
) -> Iterator[Any]:
    """Deploy the toy as application `name`; yield its handle.

    At the end Serve is shut down: threads of a handle that is left would attach to Ray again while the cluster goes.
    """
    engine = serve.deployment(Replica).options(
        name="Engine",
        max_ongoing_requests=100,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=60,
        ray_actor_options={"num_cpus": 0.5, "runtime_env": {"env_vars": {"PYTHONPATH": HERE, **(env or {})}}},
        **options,
    )
    try:
        yield serve.run(engine.bind(Fixed(OpenToy(step_s)), batch_rows), name=name, route_prefix=None)
    finally:
        serve.shutdown()


def running(name: str) -> int:
    """Return how many replicas of an application answer."""
    states = serve.status().applications[name].deployments["Engine"].replica_states
    return {str(getattr(state, "value", state)): count for state, count in states.items()}.get("RUNNING", 0)


def wait_for(what: Callable[[], Any], limit_s: float) -> float:
    """Wait until something is so; return the seconds it took."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < limit_s, "it did not come to pass"
        time.sleep(0.1)
    return time.monotonic() - began
