"""The endpoint as a Serve application, and the command that puts it up.

`serve.app:build` is what a Serve config names (cluster/kuberay/rayservice.yaml). On one machine:

    python -m serve.app up [--port 8000] [--set KEY=VALUE] [--detach] | down | status

RAY_ADDRESS names the cluster (a job has it set); without it `up` starts a Ray of its own that ends with it.
"""

import argparse
import json
import os
import signal
import sys
from typing import Any

from pydantic import ValidationError
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig

from serve import upkeep
from serve.accounts import NoAccounts, open_accounts
from serve.accounts.accounts import VARIABLE as ACCOUNTS
from serve.ingress import WEBHOOK_SECRET, Ingress
from serve.registered import Registered
from serve.replica import Replica
from serve.settings import Settings
from serve.styles import VARIABLE as STYLES
from serve.styles import open_styles
from serve.upkeep import NAME
from ssd1b.command import nearest, show
from ssd1b.home import home, tracking_uri

PASSED_ON = (ACCOUNTS, STYLES, WEBHOOK_SECRET)
"""Variables of whoever builds the application that its processes see too, on whatever node."""
METRICS = {
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
}
"""How often replicas and handles tell the autoscaler; every 10 s is Serve's own."""


def build(settings: Settings) -> Application:
    """Return the application: fronts, autoscaled engines.

    What is wrong is said here, once, rather than by every replica that cannot start.

    Raises:
        ValueError: the registry has no champion, styles or accounts that cannot be read, or no accounts where
            strangers may come.
    """
    model = Registered(settings.model, settings.backend, settings.adapters, settings.slots, settings.rank)
    model.look(None)
    open_styles()
    if not settings.open and isinstance(open_accounts(), NoAccounts):
        raise ValueError(
            "there are no accounts, so whoever reaches the endpoint would draw for free: make one with `python -m "
            f"serve.accounts add NAME` where this runs, name their database with {ACCOUNTS}, or set open to true"
        )
    env = {"SSD1B_HOME": str(home()), "MLFLOW_TRACKING_URI": tracking_uri(), **METRICS}
    env |= {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    engine = serve.deployment(Replica).options(
        name="Engine",
        max_ongoing_requests=8 * settings.batch_rows,
        max_queued_requests=32 * settings.batch_rows,
        max_constructor_retry_count=3,
        health_check_period_s=5,
        health_check_timeout_s=60,
        graceful_shutdown_timeout_s=600,  # for the longest request; it ends as soon as the last one has
        graceful_shutdown_wait_loop_s=0.5,
        request_router_config=RequestRouterConfig(
            request_router_class="serve.routing.AdapterRouter",
            request_routing_stats_period_s=1,
            request_routing_stats_timeout_s=10,
        ),
        autoscaling_config=AutoscalingConfig(
            min_replicas=settings.min_replicas,
            max_replicas=max(settings.min_replicas, settings.max_replicas),
            target_ongoing_requests=settings.batch_rows,
            metrics_interval_s=1,
            look_back_period_s=5,
            upscale_delay_s=5,
            downscale_delay_s=settings.idle_s,
            downscale_to_zero_delay_s=2 * settings.idle_s,
            policy=AutoscalingPolicy(
                policy_function="serve.autoscale:WorkPolicy",
                policy_kwargs={"drain_s": settings.drain_s, "batch_drain_s": settings.batch_drain_s},
            ),
        ),
        ray_actor_options={
            "num_cpus": settings.engine_cpus,
            "num_gpus": settings.engine_gpus,
            "runtime_env": {"env_vars": env},
        },
    )
    place: dict[str, Any] = {"num_cpus": 0.1}
    if settings.fronts > 1:  # predictions.db has a write-ahead log, which is of one machine
        place = {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}
    front = serve.deployment(Ingress).options(
        name="Ingress",
        num_replicas=settings.fronts,
        max_ongoing_requests=1000,
        health_check_period_s=1,  # one that is dead is replaced at the next
        health_check_timeout_s=60,
        graceful_shutdown_timeout_s=600,  # as the engine's: what was accepted is answered
        graceful_shutdown_wait_loop_s=0.5,
        logging_config={"enable_access_log": False},  # a visit has a line of its own (serve/front/visits.py)
        ray_actor_options={**place, "runtime_env": {"env_vars": env}},
    )
    replica = engine.bind(model, settings.batch_rows, settings.finishing, settings.poll_s)
    return front.bind(replica, settings.model, settings.webhook_hosts)


def up(settings: Settings, host: str, port: int, detach: bool) -> None:
    """Deploy, wait until it answers, print how to call it, and stay until Ctrl-C unless told to detach.

    Raises:
        ValueError: no champion, a port that is taken, nothing to detach from, or strangers and no accounts.
    """
    if detach and "RAY_ADDRESS" not in os.environ:
        raise ValueError(
            "--detach leaves the endpoint on a cluster: set RAY_ADDRESS (`python -m cluster.local` starts one)"
        )
    if upkeep.is_loopback(host):
        settings = settings.model_copy(update={"open": True})
    application = build(settings)  # before a cluster is started for nothing
    upkeep.connect()
    if not upkeep.running():
        upkeep.require_free(host, port)
    upkeep.start(host, port)
    serve.run(application, name=NAME, route_prefix="/")
    upkeep.require_answer(upkeep.url_of(host, port))
    show(upkeep.told(settings.model, host, port, free=isinstance(open_accounts(), NoAccounts)))
    if detach:
        show(json.dumps({"url": upkeep.url_of(host, port), "model": settings.model}))
        return
    show("Ctrl-C takes it down.")
    try:
        signal.pause()
    except KeyboardInterrupt:
        show("taking it down")
    finally:
        down()


def down() -> None:
    """Take the application down; the cluster stays."""
    upkeep.require_up()
    serve.delete(NAME)
    if not serve.status().applications:
        serve.shutdown()


def status() -> None:
    """Print the state of the application and its deployments."""
    upkeep.require_up()
    application = serve.status().applications[NAME]
    show(f"{NAME}: {application.status.value} {application.message}".rstrip())
    for name, deployment in application.deployments.items():
        replicas = dict(deployment.replica_states)
        show(f"  {name}: {deployment.status.value}, replicas {replicas} {deployment.message}".rstrip())


def settings_of(pairs: list[str]) -> Settings:
    """Return the settings that `KEY=VALUE` texts make; values are JSON, or else text.

    Raises:
        ValueError: no such setting, or a value it cannot have.
    """
    given: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in Settings.model_fields:
            hint = nearest(key, list(Settings.model_fields))
            raise ValueError(f"--set {pair}: write KEY=VALUE with one of {', '.join(Settings.model_fields)}{hint}")
        try:
            given[key] = json.loads(value)
        except ValueError:
            given[key] = value
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise ValueError(f"--set {where}{first['msg']}; given: {first['input']!r}") from error


def main(arguments: list[str] | None = None) -> None:
    """Read the command line; what a user can mend ends with a message and status 2."""
    parser = argparse.ArgumentParser(prog="python -m serve.app", description="The endpoint: up, down or status.")
    parser.add_argument("verb", choices=("up", "down", "status"))
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine only)"
    )
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--detach", action="store_true", help="return when it answers; it stays on the cluster of RAY_ADDRESS"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="pairs", help="a setting (serve/settings.py)"
    )
    options = parser.parse_args(arguments)
    try:
        if options.verb == "up":
            up(settings_of(options.pairs), options.host, options.port, options.detach)
            return
        if "RAY_ADDRESS" not in os.environ:
            raise ValueError(
                "set RAY_ADDRESS to the cluster the endpoint is on; one in the foreground ends with Ctrl-C"
            )
        upkeep.connect()
        down() if options.verb == "down" else status()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
