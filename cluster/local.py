"""A Ray head of one's own on this machine, for the demo and for trying things: started, used, taken down.

It is a child process with its own temporary folder and free ports, so it neither finds nor disturbs another Ray on the
machine (`ray stop` would end them all). Ray listens on the machine's network address, so the cluster asks for a token
that only this process knows, unless RAY_AUTH_MODE in the environment says otherwise.

    with local_cluster() as cluster:
        JobSubmissionClient(cluster.dashboard_url, headers=cluster.headers)
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

START_S = 240
"""How long a head may take to answer; two busy cores need a minute or two."""
RAY = ("-m", "ray.scripts.scripts")
"""Ray's command line, run by this very Python."""
STOP_S = 10
"""How long it may take to end on SIGTERM before its processes are killed."""


@dataclass(frozen=True, kw_only=True)
class LocalCluster:
    """Where a running local cluster answers."""

    address: str
    """host:port for ray.init."""
    dashboard_url: str
    """http://host:port for the job submission API and the browser."""
    token: str | None
    """What the cluster asks for; None if it asks for nothing."""
    folder: Path
    """Ray's temporary folder: sessions and logs."""
    pid: int
    """The head's parent process; its end is the cluster's end."""

    @property
    def headers(self) -> dict[str, str]:
        """What JobSubmissionClient(headers=...) needs."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @property
    def env(self) -> dict[str, str]:
        """Variables with which another process, or `ray job submit`, finds the cluster."""
        auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token} if self.token else {"RAY_AUTH_MODE": "disabled"}
        return {"RAY_ADDRESS": self.address, "RAY_API_SERVER_ADDRESS": self.dashboard_url, **auth}


@contextmanager
def local_cluster(
    num_cpus: int | None = None, object_store_bytes: int = 512 * 2**20, env: dict[str, str] | None = None
) -> Iterator[LocalCluster]:
    """Start a head, yield where it answers, and take it down whatever happens inside; after an error its logs stay.

    Args:
        num_cpus: logical CPUs; None is the machine's, but at least 8. Ray counts reservations, it pins nobody to a
            core, and a Ray Data job with an elastic trainer beside it reserves more than a laptop has.
        object_store_bytes: shared memory for objects.
        env: variables for the head and everything that runs on it.

    Raises:
        ValueError: the head did not come up; the message holds the end of its log.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: Ray's socket paths may have 107 characters
    token = None if os.environ.get("RAY_AUTH_MODE", "token").lower() == "disabled" else secrets.token_hex(32)
    dashboard, agent, client = free_ports(3)
    command = [
        *(sys.executable, *RAY, "start", "--head", "--block", "--disable-usage-stats"),
        *("--port=0", f"--temp-dir={folder}", f"--ray-client-server-port={client}"),
        *("--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
        *(f"--dashboard-agent-listen-port={agent}", f"--object-store-memory={object_store_bytes}"),
        f"--num-cpus={num_cpus or max(8, os.cpu_count() or 1)}",
    ]
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    inherited = {
        key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    }
    log = folder / "head.log"
    with log.open("wb") as output:
        head = subprocess.Popen(
            command,
            env={**inherited, **auth, **(env or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for us; we end the head
        )
    try:
        url = f"http://127.0.0.1:{dashboard}"
        address = wait_for(head, folder, url, token, log)
        yield LocalCluster(address=address, dashboard_url=url, token=token, folder=folder, pid=head.pid)
    finally:
        stop(head)
    shutil.rmtree(folder)  # after an error it stays, for its logs


def wait_for(head: "subprocess.Popen[bytes]", folder: Path, url: str, token: str | None, log: Path) -> str:
    """Return the cluster's address once its dashboard answers and takes jobs."""
    deadline = time.monotonic() + START_S
    written = folder / "ray_current_cluster"  # `ray start` writes its address here
    while time.monotonic() < deadline and head.poll() is None:
        if written.exists() and answers(f"{url}/api/jobs/", token):
            return written.read_text().strip()
        time.sleep(0.3)
    why = f"ended with status {head.returncode}" if head.poll() is not None else f"did not answer within {START_S} s"
    raise ValueError(f"the local Ray head {why}; the end of {log}:\n{log.read_text(errors='replace')[-2000:]}")


def answers(url: str, token: str | None) -> bool:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return int(response.status) == 200
    except (URLError, TimeoutError, ConnectionError):  # not up yet; wait_for sets the limit
        return False


def stop(head: "subprocess.Popen[bytes]") -> None:
    """End the head and what it started: SIGTERM makes `ray start --block` end its processes, then it goes."""
    if head.poll() is not None:
        return
    head.send_signal(signal.SIGTERM)
    try:
        head.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(head.pid, signal.SIGKILL)  # its own session, so nobody else's processes
        head.wait()


def free_ports(count: int) -> list[int]:
    """Return ports that are free now on all addresses; held open together, so no two are equal."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def main() -> None:
    """Start a cluster. With a command after `--`: run it there and end with its status; else stay until Ctrl-C."""
    with local_cluster() as cluster:
        print(f"Ray answers; dashboard {cluster.dashboard_url}", flush=True)
        if "--" in sys.argv:
            command = sys.argv[sys.argv.index("--") + 1 :]
            raise SystemExit(subprocess.run(command, env=os.environ | cluster.env, check=False).returncode)
        print("In another shell:")
        for key, value in cluster.env.items():
            print(f"  export {key}={value}")
        print("  ray job submit --working-dir . -- python -m jobs.NAME RECIPE\nCtrl-C ends it.", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("ending", flush=True)


if __name__ == "__main__":
    main()
