"""Putting Serve up on a cluster and knowing that it answers: what `python -m serve.app` does around the application."""

import logging
import os
import socket
import time
from ipaddress import ip_address

import httpx
import ray
from ray import serve

from ssd1b.command import show
from ssd1b.session import quiet

NAME = "ssd1b"
"""The application's."""
ANSWER_S = 180
"""How long a deployed endpoint may take to answer over HTTP."""
CHECKS = {
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "0.5",
}
"""Patience with a proxy that starts or is busy: Serve gives up after three waits of 5 and of 10 s, and on two busy
cores its imports alone take longer. None with a dead one: that is noticed at the third check in a row, which at Serve's
own period of 10 s is half a minute without an answer to anybody. cluster/kuberay/rayservice.yaml sets them too."""


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
            http_options={"host": host, "port": port},
            controller_options={"runtime_env": {"env_vars": CHECKS}},
            logging_config={"enable_access_log": False},  # the fronts write a line for each request
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


def is_loopback(host: str) -> bool:
    """Whether an address to listen on reaches this machine only."""
    return host == "localhost" or ((host[:1].isdigit() or ":" in host) and ip_address(host.strip("[]")).is_loopback)


def url_of(host: str, port: int) -> str:
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"


def told(model: str, host: str, port: int, free: bool) -> str:
    """Return where it answers, for whom, and commands that work when pasted."""
    url = url_of(host, port)
    decode = (
        "python3 -c 'import base64, json, sys; "
        'sys.stdout.buffer.write(base64.b64decode(json.load(sys.stdin)["data"][0]["b64_json"]))\''
    )
    loopback = is_loopback(host)
    reach = "this machine only" if loopback else f"whoever reaches {host}"
    key = "" if free else " -H 'x-api-key: YOUR KEY'"
    post = f"curl -s {url}/v1/images/generations{key} -H 'content-type: application/json'"
    paid = "free: there are no accounts; `python -m serve.accounts add NAME` makes the first" if free else "by key"
    return f"""
{model} answers on {url}: {reach}, {paid}.

  {url}/           the page to play with
  {url}/docs       its five dialects

  {post} -d '{{"prompt": "a red apple, flat vector style", "seed": 1}}' | {decode} > apple.png
  {post} -d '{{"prompt": "a red apple, black line style", "seed": 1, "lora": "black-line"}}' | {decode} > line.png
  curl -s {url}/v1/models{key}
"""
