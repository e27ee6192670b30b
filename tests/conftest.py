"""Fixtures of the whole suite: one thread per process, one Ray cluster per session, one storage root per test.

Property tests draw the same cases every time, so that the suite passes or fails by the code alone. New cases are looked
for by HYPOTHESIS_PROFILE=explore.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["RAY_AUTH_MODE"] = "disabled"  # else ray.init() writes a token file into the home folder
os.environ.setdefault("RAY_worker_niceness", "0")  # else workers wait for all else that this machine does
os.environ.setdefault("RAY_health_check_period_ms", "1000")  # a dead node is seen in 5 s instead of 14
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty storage root of the test's own."""
    monkeypatch.setenv("SSD1B_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with nothing in it: making the tables takes seconds, copying them does not."""
    from ssd1b import tracking

    root = tmp_path_factory.mktemp("empty-store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSD1B_HOME", str(root))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking.connect()
    return root / "mlflow.db"


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[object]:
    """A real Ray cluster on this machine, started once: a head of 8 logical CPUs. Yields ray.cluster_utils.Cluster."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 8, "object_store_memory": 256 * 2**20, "include_dashboard": False},
    )
    ray.init(address=cluster.address, log_to_driver=False, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.hookimpl(optionalhook=True, tryfirst=True)  # xdist has one too; without xdist there is no such hook
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Side by side (`make test`), tests of a file run together, and files that use Ray one after the other.

    xdist has groups of its own; with pytest 9.2 version 3.8 does not form them, and says nothing.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "ray" if "mark.ray" in (config.rootpath / file).read_text() else file

    return ByFile(config, log)
