"""The endpoint as a Serve application, and the command that puts it up.

`serve.app:build` is what a Serve config names (cluster/kuberay/rayservice.yaml). On one machine:

    python -m serve.app up [--port 8000] [--detach] | down | status

RAY_ADDRESS names the cluster (a job has it set); without it `up` starts a Ray of its own that ends with it.
"""

import argparse
import json
import logging
import os
import signal
import socket
import sys
import time
from functools import partial
from typing import Annotated

import httpx
import ray
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application

from serve.champion import open_champion, require_champion
from serve.ingress import Ingress
from serve.replica import Replica
from ssd1b.command import show
from ssd1b.home import home, tracking_uri
from ssd1b.session import quiet

NAME = "ssd1b"
ANSWER_S = 180
"""How long a deployed endpoint may take to answer over HTTP."""
PATIENCE = {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60", "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60"}
"""Serve kills a proxy that is not up after three checks of 5 s; on two busy cores its imports alone take longer."""


class Settings(BaseModel):
    """What a Serve config may set under `args`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "ssd1b-nano"
    """Registered model whose @champion is served, under this name."""
    backend: str = "auto"
    """Engine backend of the champion's bundle."""
    batch_rows: Annotated[int, Field(ge=1)] = 8
    """Pictures that make a step together."""
    min_replicas: Annotated[int, Field(ge=0)] = 1
    max_replicas: Annotated[int, Field(ge=1)] = 2
    target_requests: Annotated[int, Field(ge=1)] = 8
    """Requests in a replica that the autoscaler aims at: a full batch."""
    engine_cpus: float = 1
    engine_gpus: float = 0


def build(settings: Settings) -> Application:
    """Return the application: one front, autoscaled engines.

    Raises:
        ValueError: the registry has no champion; said here, once, rather than by every replica that cannot start.
    """
    require_champion(settings.model)
    env = {"SSD1B_HOME": str(home()), "MLFLOW_TRACKING_URI": tracking_uri()}
    engine = serve.deployment(Replica).options(
        name="Engine",
        max_ongoing_requests=4 * settings.target_requests,
        max_queued_requests=32 * settings.target_requests,
        max_constructor_retry_count=3,
        health_check_timeout_s=60,
        graceful_shutdown_timeout_s=60,
        autoscaling_config={
            "min_replicas": settings.min_replicas,
            "max_replicas": max(settings.min_replicas, settings.max_replicas),
            "target_ongoing_requests": settings.target_requests,
            "upscale_delay_s": 10,
            "downscale_delay_s": 120,
        },
        ray_actor_options={
            "num_cpus": settings.engine_cpus,
            "num_gpus": settings.engine_gpus,
            "runtime_env": {"env_vars": env},
        },
    )
    front = serve.deployment(Ingress).options(
        name="Ingress", max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0.1, "runtime_env": {"env_vars": env}}
    )
    replica = engine.bind(partial(open_champion, settings.model, settings.backend), settings.batch_rows)
    return front.bind(replica, settings.model)


def up(settings: Settings, host: str, port: int, detach: bool) -> None:
    """Deploy, wait until it answers, print how to call it, and stay until Ctrl-C unless told to detach.

    Raises:
        ValueError: no champion, a port that is taken, or nothing to detach from.
    """
    if detach and "RAY_ADDRESS" not in os.environ:
        raise ValueError(
            "--detach leaves the endpoint on a cluster: set RAY_ADDRESS (`python -m cluster.local` starts one)"
        )
    application = build(settings)  # before a cluster is started for nothing
    connect()
    if not running():
        require_free(host, port)
    start(host, port)
    serve.run(application, name=NAME, route_prefix="/")
    require_answer(url_of(host, port))
    show(curl_lines(settings.model, host, port))
    if detach:
        show(json.dumps({"url": url_of(host, port), "model": settings.model}))
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
    require_up()
    serve.delete(NAME)
    if not serve.status().applications:
        serve.shutdown()


def status() -> None:
    """Print the state of the application and its deployments."""
    require_up()
    application = serve.status().applications[NAME]
    show(f"{NAME}: {application.status.value} {application.message}".rstrip())
    for name, deployment in application.deployments.items():
        replicas = dict(deployment.replica_states)
        show(f"  {name}: {deployment.status.value}, replicas {replicas} {deployment.message}".rstrip())


def connect() -> None:
    """Attach to the cluster that RAY_ADDRESS names, or start one for this process."""
    quiet()
    if ray.is_initialized():
        return
    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
        return
    # Logical CPUs: room for the front and two engines on two cores. "local" never attaches to somebody's Ray.
    ray.init(
        address="local",
        num_cpus=max(8, os.cpu_count() or 1),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def start(host: str, port: int) -> None:
    """Start Serve on the cluster, its HTTP proxy on host:port. If it runs already nothing changes."""
    try:
        serve.start(
            http_options={"host": host, "port": port}, controller_options={"runtime_env": {"env_vars": PATIENCE}}
        )
    except TimeoutError:
        # Serve waits one minute for its proxy, which goes on starting all the same; require_answer waits longer.
        show("the HTTP proxy is slow to start; waiting")


def running() -> bool:
    """Whether Serve runs on the cluster already, and so holds its port."""
    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return False
    return True


def require_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(f"cannot listen on {host}:{port} ({error.strerror}): choose another --port") from error


def require_up() -> None:
    if NAME not in serve.status().applications:
        raise ValueError(f"{NAME} is not up on this cluster: `python -m serve.app up` puts it there")


def require_answer(url: str) -> None:
    """Wait until the endpoint answers where we are about to say it does.

    Raises:
        ValueError: it does not; Serve keeps the address it was first started with.
    """
    deadline = time.monotonic() + ANSWER_S
    while True:
        try:
            httpx.get(f"{url}/healthz", timeout=10).raise_for_status()
            return
        except httpx.HTTPError as error:
            if time.monotonic() > deadline:
                raise ValueError(
                    f"{url} does not answer ({error}): if Serve was on this cluster before, it keeps the address it "
                    f"started with; give that as --host and --port, or take Serve down first with `serve shutdown`"
                ) from error
        time.sleep(0.5)


def url_of(host: str, port: int) -> str:
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"


def curl_lines(model: str, host: str, port: int) -> str:
    """Return commands that work when pasted."""
    url = url_of(host, port)
    decode = (
        "python3 -c 'import base64, json, sys; "
        'sys.stdout.buffer.write(base64.b64decode(json.load(sys.stdin)["data"][0]["b64_json"]))\''
    )
    post = f"curl -s {url}/v1/images/generations -H 'content-type: application/json'"
    reach = (
        "this machine only; --host 0.0.0.0 opens it to the network, without accounts"
        if host.startswith("127.")
        else host
    )
    return f"""
{model} answers on {url} ({reach}).

  {post} -d '{{"prompt": "a red apple, flat vector style", "seed": 1}}' | {decode} > apple.png
  {post} -d '{{"prompt": "a red apple, black line style", "seed": 1, "lora": "black-line"}}' | {decode} > line.png
  curl -s {url}/v1/models
"""


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
    parser.add_argument("--model", default=Settings().model, help="registered model (default: %(default)s)")
    parser.add_argument("--max-replicas", type=int, default=Settings().max_replicas)
    options = parser.parse_args(arguments)
    try:
        if options.verb == "up":
            settings = Settings(model=options.model, max_replicas=options.max_replicas)
            up(settings, options.host, options.port, options.detach)
            return
        if "RAY_ADDRESS" not in os.environ:
            raise ValueError(
                "set RAY_ADDRESS to the cluster the endpoint is on; one in the foreground ends with Ctrl-C"
            )
        connect()
        down() if options.verb == "down" else status()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
