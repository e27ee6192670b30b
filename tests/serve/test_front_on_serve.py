"""The fronts on a real Serve, over HTTP: streams, clients that hang up, the board; replicas and a front killed."""

import base64
import hmac
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import openai
import psutil
import pytest
from openai.types import ImageGenCompletedEvent
from ray import serve
from serve_toy import HERE, OpenToy, running, wait_for

from cluster.local import free_ports
from serve.accounts.database import Database
from serve.accounts.ledger import faults
from serve.accounts.office import Office, Terms
from serve.ingress import WEBHOOK_SECRET, Ingress
from serve.model import Fixed
from serve.replica import Replica
from serve.upkeep import require_answer, start, url_of

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]
NAME = "toyfront"
IMAGES = "/v1/images/generations"
LONG = {"prompt": "x", "num_inference_steps": 100, "seed": 3}
SHORT = {"prompt": "x", "num_inference_steps": 4, "size": "128x128"}
PREDICTED = {"prompt": "x", "seed": 5}
INGRESS = f"ray::ServeReplica:{NAME}:Ingress"
CALLERS = 6
PRICE = 5
"""Mills of a SHORT one."""


@dataclass
class Place:
    """Two fronts before one replica, with accounts."""

    url: str
    home: Path
    http: httpx.Client = field(init=False)
    database: Database = field(init=False)

    def __post_init__(self) -> None:
        self.database = Database(f"sqlite:///{self.home / 'accounts.db'}")
        self.http = self.client("local", 10**6, Terms())

    def client(self, name: str, mills: int, terms: Terms) -> httpx.Client:
        """Open an account and return a client with its key, which keeps no connection."""
        self.database.run(lambda connection: Office().add(connection, name, mills, terms))
        key = self.database.run(lambda connection: Office().key(connection, name, None))["key"]
        limits = httpx.Limits(max_keepalive_connections=0)
        return httpx.Client(base_url=self.url, headers={"x-api-key": key}, timeout=60, limits=limits)

    @property
    def openai(self) -> openai.OpenAI:
        key = self.http.headers["x-api-key"]
        return openai.OpenAI(api_key=key, base_url=f"{self.url}/v1", max_retries=0, timeout=120)

    def charged(self, name: str) -> int:
        """Return how many requests of an account were charged; the ledger agrees with itself."""
        assert self.database.run(lambda connection: list(faults(connection))) == []
        return int(self.database.run(lambda connection: Office().usage(connection, name, 0.0))["requests"])

    def board(self) -> list[dict[str, object]]:
        replicas: list[dict[str, object]] = self.http.get("/status").json()["replicas"]
        return replicas

    def idle(self) -> bool:
        return all(replica["rows"] == 0 and replica["queue"] == 0 for replica in self.board())


@pytest.fixture(scope="module")
def place(ray_cluster: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    assert ray_cluster
    (port,) = free_ports(1)
    start("127.0.0.1", port)
    found = Place(url_of("127.0.0.1", port), tmp_path_factory.mktemp("home"))
    env = {"PYTHONPATH": HERE, "SSD1B_HOME": str(found.home)}
    actor = {"num_cpus": 0.5, "runtime_env": {"env_vars": env}}
    engine = serve.deployment(Replica).options(
        name="Engine", max_ongoing_requests=100, health_check_period_s=1, ray_actor_options=actor
    )
    front = serve.deployment(Ingress).options(
        name="Ingress", num_replicas=2, max_ongoing_requests=100, health_check_period_s=1, ray_actor_options=actor
    )
    serve.run(front.bind(engine.bind(Fixed(OpenToy(0.02)), 4), "toy"), name=NAME, route_prefix="/")
    require_answer(found.url)
    yield found
    serve.shutdown()


def front_of(answer: httpx.Response) -> str:
    """Name the front that answered."""
    return answer.headers["x-request-id"][4:12]


def until_another(front: str, ask: Callable[[], httpx.Response]) -> httpx.Response:
    """Ask until another front answers than this one."""
    for _ in range(100):
        answer = ask()
        assert answer.is_success, answer.text
        if front_of(answer) != front:
            return answer
    raise AssertionError(f"{front} answered a hundred times")


def test_a_stream_over_http(place: Place) -> None:
    client = place.openai
    begun = time.monotonic()
    told = []
    for event in client.images.generate(prompt="x", stream=True, partial_images=3, extra_body=LONG):
        told.append((event.type.rpartition(".")[2], time.monotonic() - begun))
    assert [kind for kind, _ in told] == ["partial_image"] * 3 + ["completed"]
    assert told[-1][1] - told[0][1] > 0.5  # as they happen, not all at the end


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_ends_its_work(place: Place, stream: bool) -> None:
    wait_for(place.idle, 30)
    with pytest.raises(httpx.ReadTimeout):
        place.http.post(IMAGES, json={**LONG, "n": 4, "stream": stream}, timeout=httpx.Timeout(5, read=0.6))
    assert wait_for(place.idle, 10) < 1.5  # all its steps would take 2 s more


def test_the_board_tells_of_every_replica(place: Place) -> None:
    (replica,) = place.board()
    assert {"name", "queue", "rows", "row_steps_left", "row_steps_per_s", "resident", "version"} <= set(replica)


def test_a_prediction_outlives_the_request(place: Place) -> None:
    path, _ = begun(place, 10)
    wait_for(lambda: place.http.get(path).json()["status"] == "succeeded", 30)


def test_a_replica_is_killed_in_a_stream_and_the_client_sees_none_of_it(place: Place) -> None:
    """Also for one that does not stream; both draw what an undisturbed request draws."""
    client = place.openai
    calm = client.images.generate(prompt="x", extra_body=LONG).data
    pid = int(str(place.board()[0]["name"]).removeprefix("pid "))
    plain: list[object] = []
    thread = threading.Thread(target=lambda: plain.append(client.images.generate(prompt="x", extra_body=LONG).data))
    thread.start()
    events = []
    for event in client.images.generate(prompt="x", stream=True, partial_images=3, extra_body=LONG):
        events.append(event)
        if len(events) == 2:
            os.kill(pid, signal.SIGKILL)
    thread.join(120)
    assert [event.type.rpartition(".")[2] for event in events] == ["partial_image"] * 3 + ["completed"]
    assert isinstance(events[-1], ImageGenCompletedEvent)
    assert calm
    assert events[-1].b64_json == calm[0].b64_json
    assert plain == [calm]
    assert str(place.board()[0]["name"]) != f"pid {pid}"


def test_the_board_of_an_endpoint_that_sleeps_wakes_nobody(place: Place) -> None:
    """Nor does the registry's message that something moved."""
    env = {"PYTHONPATH": HERE, "SSD1B_HOME": str(place.home), WEBHOOK_SECRET: "secret"}
    actor = {"num_cpus": 0.1, "runtime_env": {"env_vars": env}}
    asleep = {"min_replicas": 0, "max_replicas": 1}
    soon = {"graceful_shutdown_wait_loop_s": 0.1, "graceful_shutdown_timeout_s": 1, "ray_actor_options": actor}
    engine = serve.deployment(Replica).options(name="Engine", autoscaling_config=asleep, **soon)
    front = serve.deployment(Ingress).options(name="Ingress", **soon)
    serve.run(front.bind(engine.bind(Fixed(OpenToy(0.02)), 4), "toy"), name="asleep", route_prefix="/asleep")
    try:
        began = time.monotonic()
        for _ in range(3):
            told = place.http.get("/asleep/status")
            assert (told.status_code, told.json()["replicas"]) == (200, [])
            assert "no replica runs" in told.json()["state"]
        stamp, body = str(int(time.time())), b"{}"
        signed = hmac.digest(b"secret", f"id.{stamp}.".encode() + body, "sha256")
        headers = {"x-mlflow-timestamp": stamp, "x-mlflow-delivery-id": "id",
            "x-mlflow-signature": f"v1,{base64.b64encode(signed).decode()}"}  # fmt: skip
        assert place.http.post("/asleep/hooks/mlflow", content=body, headers=headers).status_code == 204
        assert time.monotonic() - began < 5
        time.sleep(1.5)
        assert not running("asleep")
        assert place.http.post(f"/asleep{IMAGES}", json=SHORT).status_code == 200
        assert place.http.get("/asleep/status").json()["state"] == "up"
    finally:
        serve.delete("asleep")


# ---- two fronts


def begun(place: Place, steps: int) -> tuple[str, str]:
    """Begin a prediction; return its path and the front that runs it."""
    made = place.http.post("/v1/predictions", json={"input": {**PREDICTED, "num_inference_steps": steps}})
    assert made.status_code == 201, made.text
    return f"/v1/predictions/{made.json()['id']}", front_of(made)


def test_a_prediction_is_read_streamed_and_cancelled_at_another_front(place: Place) -> None:
    path, front = begun(place, 60)
    assert until_another(front, lambda: place.http.get(path)).json()["status"] in ("starting", "processing")
    streamed = until_another(front, lambda: place.http.get(f"{path}/stream"))
    assert "event: done" in streamed.text
    for _ in range(30):
        path, front = begun(place, 100)
        cancelled = place.http.post(f"{path}/cancel")
        if front_of(cancelled) != front:
            break
    assert front_of(cancelled) != front
    assert cancelled.json()["status"] == "canceled"
    assert wait_for(place.idle, 10) < 1.5  # all its steps would take 2 s
    assert until_another(front_of(cancelled), lambda: place.http.get(path)).json()["status"] == "canceled"


@pytest.mark.parametrize(
    ("name", "mills", "terms", "status"),
    [("brisk", 10**6, Terms(requests_per_minute=7), 429), ("poor", 7 * PRICE + PRICE - 1, Terms(), 402)],
)
def test_limits_and_credits_are_exact_across_fronts(
    place: Place, name: str, mills: int, terms: Terms, status: int
) -> None:
    client = place.client(name, mills, terms)
    answers = at_once(lambda: client.post(IMAGES, json=SHORT), 20)
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [status] * 13
    assert len({front_of(answer) for answer in answers}) == 2
    assert place.charged(name) == 7


def at_once(work: Callable[[], httpx.Response], times: int) -> list[httpx.Response]:
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(work())) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


def test_a_front_is_killed_and_only_what_it_held_breaks_off(place: Place) -> None:
    """Callers ask again under their keys and are charged once each; predictions that ran there are made elsewhere."""
    client = place.client("steady", 10**6, Terms())
    told: list[tuple[float, str]] = []
    answered: list[float] = []
    over = threading.Event()

    def call(caller: int) -> None:
        number = 0
        while not over.is_set():
            number += 1
            key = {"idempotency-key": f"{caller}-{number}"}
            while True:
                try:
                    answer = client.post(IMAGES, json={**SHORT, "num_inference_steps": 10}, headers=key)
                except httpx.HTTPError as error:
                    told.append((time.monotonic(), repr(error)))
                else:
                    if answer.is_success:
                        answered.append(time.monotonic())
                        break
                    told.append((time.monotonic(), answer.text))

    threads = [threading.Thread(target=call, args=(caller,)) for caller in range(CALLERS)]
    for thread in threads:
        thread.start()
    left: dict[str, str] = {}
    while len(left) < 2:  # one at each front
        path, front = begun(place, 80)
        left[front] = path
    victim = next(one for one in psutil.Process().children(recursive=True) if INGRESS in " ".join(one.cmdline()))
    killed = time.monotonic()
    os.kill(victim.pid, signal.SIGKILL)
    time.sleep(4)
    over.set()
    for thread in threads:
        thread.join(60)
    assert [text for at, text in told if at < killed] == []
    assert len(told) <= CALLERS, told
    assert [at for at in answered if killed < at < killed + 2], "the other front answers meanwhile"
    assert place.charged("steady") == len(answered)
    for path in left.values():
        wait_for(lambda path=path: place.http.get(path).json()["status"] == "succeeded", 40)
