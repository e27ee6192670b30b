"""The champion moves ten times under load, on a real Serve with a real registry: no request fails, all follow."""

import base64
import io
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from mlflow.webhooks.delivery import _generate_hmac_signature
from PIL import Image
from ray import serve
from serve_toy import HERE, wait_for
from versions_toy import SHADE, ToyRegistered

from cluster.local import free_ports
from serve.ingress import WEBHOOK_SECRET, Ingress
from serve.replica import Replica
from serve.rollout import registry
from serve.rollout.hook import PATH
from serve.upkeep import require_answer, start, url_of
from ssd1b import tracking

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]
MODEL, SECRET = "toy", "s3cret"
VERSIONS = 4


@pytest.fixture(scope="module")
def address(ray_cluster: object, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two replicas that look at the registry once a minute, or when its webhook says so."""
    assert ray_cluster
    home = tmp_path_factory.mktemp("rollout")
    shutil.copy(empty_store, home / "mlflow.db")
    (home / "model").mkdir()
    (home / "model" / "weights").write_text("x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSD1B_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for _ in range(VERSIONS):
            tracking.register(MODEL, home / "model", run_id=None, alias=None, tags={})
        tracking.crown(MODEL, "champion", "1")
        (port,) = free_ports(1)
        start("127.0.0.1", port)
        env = {"PYTHONPATH": HERE, "SSD1B_HOME": str(home), WEBHOOK_SECRET: SECRET}
        actor = {"num_cpus": 0.5, "runtime_env": {"env_vars": env}}
        engine = serve.deployment(Replica).options(
            name="Engine", num_replicas=2, max_ongoing_requests=100, ray_actor_options=actor
        )
        front = serve.deployment(Ingress).options(name="Ingress", max_ongoing_requests=100, ray_actor_options=actor)
        model = ToyRegistered(MODEL, broken=("4",))
        serve.run(front.bind(engine.bind(model, 4, None, 60.0), MODEL), name="rollout", route_prefix="/")
        url = url_of("127.0.0.1", port)
        require_answer(url)
        yield url
        serve.shutdown()


def webhook(address: str) -> None:
    body, stamp = json.dumps({"entity": "model_version_alias"}), str(int(time.time()))
    headers = {"X-MLflow-Signature": _generate_hmac_signature(SECRET, "d", stamp, body), "X-MLflow-Timestamp": stamp}
    answer = httpx.post(address + PATH, content=body, headers={**headers, "X-MLflow-Delivery-Id": "d"}, timeout=30)
    assert answer.status_code == 204, answer.text


def draw(address: str, seed: int) -> int:
    """Return the version that drew a picture."""
    body = {"prompt": "x", "seed": seed, "num_inference_steps": 8}
    answer = httpx.post(f"{address}/v1/images/generations", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    with Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))) as picture:
        shades = picture.convert("L").getextrema()
    assert shades[0] == shades[1]
    return int(shades[0]) // SHADE


def replicas(address: str) -> list[dict[str, object]]:
    told: list[dict[str, object]] = httpx.get(f"{address}/status", timeout=30).json()["replicas"]
    return told


def all_serve(address: str, version: str) -> bool:
    told = replicas(address)
    return len(told) == 2 and all(one["version"] == version and one["open"].keys() == {version} for one in told)  # type: ignore[attr-defined]


@dataclass
class Load:
    """Clients that ask one picture after another."""

    address: str
    clients: int = 6
    drawn: Counter[int] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Load":
        self.threads = [threading.Thread(target=self.ask, args=(n,)) for n in range(self.clients)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()

    def ask(self, client: int) -> None:
        seed = client
        while not self.over.is_set():
            try:
                self.drawn[draw(self.address, seed)] += 1
            except Exception as error:  # whatever it is, it is a request that failed
                self.failed.append(f"{type(error).__name__}: {error}")
            seed += self.clients


def test_the_champion_moves_ten_times_under_load(address: str) -> None:
    moves = ["2", "3", "2", "1", "3", "1", "2", "3", "1", "2"]
    with Load(address) as load:
        for version in moves:
            tracking.crown(MODEL, "champion", version)
            webhook(address)
            wait_for(lambda version=version: all_serve(address, version), 30)  # type: ignore[misc]
            before = load.drawn[int(version)]
            wait_for(lambda version=version, before=before: load.drawn[int(version)] > before, 30)  # type: ignore[misc]
    print(f"{sum(load.drawn.values())} pictures by {dict(load.drawn)}, {len(load.failed)} requests failed")
    assert load.failed == []
    assert set(load.drawn) == {1, 2, 3}
    assert draw(address, 0) == 2


def test_a_canary_takes_its_share_and_a_broken_one_hurts_nobody(address: str) -> None:
    tracking.crown(MODEL, "champion", "1")
    registry.start_canary(MODEL, "3", 0.5)
    webhook(address)
    wait_for(lambda: all(one["open"].keys() == {"1", "3"} for one in replicas(address)), 30)  # type: ignore[attr-defined]
    drawn = Counter(draw(address, seed) for seed in range(40))
    assert set(drawn) == {1, 3}
    assert Counter(draw(address, seed) for seed in range(40)) == drawn  # the same requests fall to the same version
    assert httpx.get(f"{address}/status", timeout=30).json()["canary"] == {"version": "3", "share": 0.5}

    registry.start_canary(MODEL, "4", 1.0)
    webhook(address)
    wait_for(lambda: all("4" in one["failed"] for one in replicas(address)), 30)  # type: ignore[operator]
    assert {draw(address, seed) for seed in range(10)} == {1}
    registry.end_canary(MODEL)
    webhook(address)
    wait_for(lambda: all_serve(address, "1"), 30)


def test_rollback_is_one_command(address: str) -> None:
    registry.promote(MODEL, "3")
    webhook(address)
    wait_for(lambda: all_serve(address, "3"), 30)
    assert registry.rollback(MODEL).champion == "1"
    webhook(address)
    wait_for(lambda: all_serve(address, "1"), 30)
