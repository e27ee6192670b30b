"""A Ray cluster of several nodes on one machine, made to be hurt: its nodes and processes die as real ones do."""

import os
import signal
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from ray.cluster_utils import Cluster

NODE_CPUS = 2
"""Logical CPUs of a node, and of a worker: each node holds one. The head has fewer, so it holds none."""
HEAD_CPUS = 1
STORE_BYTES = 128 * 2**20


class LocalNodes:
    """A head and worker nodes; every node is a set of processes of its own."""

    def __init__(self, nodes: int, port: int = 0) -> None:
        """Start a head, on a port of choice, and so many nodes. It must be done in the main thread."""
        head = {"num_cpus": HEAD_CPUS, "object_store_memory": STORE_BYTES, "include_dashboard": False,
                "gcs_server_port": port}  # fmt: skip
        self.cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        self.nodes: list[Any] = []
        for _ in range(nodes):
            self.add()

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self) -> Any:
        """Start a node and return once the cluster knows it."""
        node = self.cluster.add_node(num_cpus=NODE_CPUS, object_store_memory=STORE_BYTES)
        self.nodes.append(node)
        return node

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def kill(self, node: Any) -> None:
        """End all processes of a node with SIGKILL."""
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def kill_all(self) -> None:
        """End all processes of all nodes and of the head with SIGKILL."""
        head = self.cluster.head_node
        for node in list(self.nodes):
            self.kill(node)
        self.cluster.remove_node(head, allow_graceful=False)

    def drain(self, node: Any, seconds: float) -> None:
        """Tell the cluster that a node goes in so many seconds, as its autoscaler or `ray drain-node` would."""
        from ray._raylet import GcsClient  # type: ignore[attr-defined]
        from ray.core.generated import autoscaler_pb2

        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline_ms = int((time.time() + seconds) * 1000)
        accepted, why = GcsClient(address=self.address).drain_node(node.node_id, reason, "taken back", deadline_ms)
        if not accepted:
            raise RuntimeError(f"the cluster does not drain {node.node_id}: {why}")

    def processes_of(self, node: Any, name: str) -> list[int]:
        """Return the process ids of the actors of a class on a node."""
        raylet = node.all_processes["raylet"][0].process.pid
        return [pid for pid in children(raylet) if name in command(pid)]

    def everywhere(self, name: str) -> list[int]:
        """Return the process ids of the actors of a class on any node."""
        return [pid for node in [self.cluster.head_node, *self.nodes] for pid in self.processes_of(node, name)]

    def terminate(self, node: Any) -> int:
        """Send SIGTERM to the training workers of a node and return how many there were."""
        pids = self.processes_of(node, "RayTrainWorker")
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        return len(pids)

    def __enter__(self) -> "LocalNodes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.cluster.head_node is not None:
            self.kill_all()


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):  # it has ended while we looked
            continue
        if parent == pid:
            found.append(int(path.parent.name))
    return found


def command(pid: int) -> str:
    """Return a process's command line, or nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""
