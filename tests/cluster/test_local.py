"""The local head: comes up on its own ports, takes a job, asks for its token, goes when it is told to."""

import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from cluster import local
from cluster.local import LocalCluster, free_ports, local_cluster


def test_free_ports_are_unlike() -> None:
    assert len(set(free_ports(5))) == 5


def test_the_environment_of_other_processes() -> None:
    cluster = LocalCluster(address="a:1", dashboard_url="http://b:2", token="secret", folder=Path(), pid=1)
    assert cluster.headers == {"Authorization": "Bearer secret"}
    assert cluster.env == {
        "RAY_ADDRESS": "a:1",
        "RAY_API_SERVER_ADDRESS": "http://b:2",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "secret",
    }
    open_one = LocalCluster(address="a:1", dashboard_url="http://b:2", token=None, folder=Path(), pid=1)
    assert open_one.headers == {}
    assert open_one.env["RAY_AUTH_MODE"] == "disabled"


def test_a_head_that_cannot_start_is_a_message_with_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: str(tmp_path))  # its logs stay, here and not under /tmp
    monkeypatch.setattr(local, "RAY", ("-c", "import sys; sys.exit('no room for a head')"))
    with pytest.raises(ValueError, match=r"(?s)ended with status 1.*no room for a head"), local_cluster():
        pass


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_head_takes_a_job_asks_for_its_token_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.job_submission import JobStatus, JobSubmissionClient

    monkeypatch.delenv("RAY_AUTH_MODE")
    with local_cluster(object_store_bytes=100 * 2**20, env={"FROM_THE_DEMO": "yes"}) as cluster:
        os.kill(cluster.pid, 0)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{cluster.dashboard_url}/api/jobs/", timeout=30)
        client = JobSubmissionClient(cluster.dashboard_url, headers=cluster.headers)
        code = "import os, ray; ray.init(); print(os.environ['FROM_THE_DEMO'], ray.cluster_resources()['CPU'])"
        job = client.submit_job(entrypoint=f'{sys.executable} -c "{code}"')
        while not client.get_job_status(job).is_terminal():
            time.sleep(0.5)
        assert client.get_job_status(job) == JobStatus.SUCCEEDED, client.get_job_logs(job)
        assert f"yes {max(8.0, os.cpu_count() or 1)}" in client.get_job_logs(job)
    with pytest.raises(ProcessLookupError):
        os.kill(cluster.pid, 0)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(cluster.dashboard_url, timeout=5)
