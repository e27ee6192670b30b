"""Replicate's predictions, by its own client over real HTTP: sync, async, streams, cancel, files, webhooks, leases."""

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import replicate
from accounts_at_hand import FewCredits
from fastapi.testclient import TestClient
from PIL import Image
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError
from replicate.exceptions import ModelError, ReplicateError
from replicate.helpers import FileOutput
from replicate.webhook import Webhooks, WebhookSigningSecret
from toy_front import ToyEngine, eventually, listening

from serve.front import predictions, runner
from serve.front.predictions import Predictions
from serve.ingress import routes

INPUT = {"prompt": "x", "num_inference_steps": 3, "seed": 5}


@pytest.fixture(scope="module")
def engine() -> ToyEngine:
    return ToyEngine()


@pytest.fixture(scope="module")
def address(engine: ToyEngine) -> Iterator[str]:
    with listening(routes(engine, "toy", webhook_hosts=["127.0.0.1:18999"])) as url:
        yield url


@pytest.fixture
def client(address: str) -> replicate.Client:
    client = replicate.Client(api_token="none", base_url=address)
    client.poll_interval = 0.02
    return client


@pytest.fixture
def slow(engine: ToyEngine) -> Iterator[None]:
    engine.painter.step_s = 0.02
    yield
    engine.painter.step_s = 0.0


def png(side: int = 128) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (200, 30, 30)).save(buffer, format="png")
    buffer.name = "in.png"
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("ref", ["ssd1b/toy", "ssd1b/toy:1", "anybody/toy"])
def test_run_waits_and_gives_files(client: replicate.Client, engine: ToyEngine, ref: str) -> None:
    made = client.run(ref, input={**INPUT, "num_outputs": 2, "scheduler": "DDIM", "output_format": "webp"})
    assert all(isinstance(one, FileOutput) for one in made)
    assert [one.read()[:4] for one in made] == [b"RIFF"] * 2
    request = engine.requests[-1]
    assert (request.seeds, request.sampler, request.steps) == ((5, 6), "ddim", 3)


@pytest.mark.usefixtures("slow")
def test_a_prediction_is_begun_and_asked_about(client: replicate.Client) -> None:
    made = client.predictions.create(version="1", input={**INPUT, "num_inference_steps": 20})
    assert made.status in ("starting", "processing")
    assert made.output is None
    made.wait()
    assert made.status == "succeeded"
    assert made.progress is not None
    assert (made.progress.current, made.progress.total, made.progress.percentage) == (20, 20, 1.0)
    assert made.metrics is not None
    assert made.metrics["predict_time"] > 0
    assert made.id in [one.id for one in client.predictions.list()]
    assert client.predictions.get(made.id).output == made.output


@pytest.mark.usefixtures("slow")
def test_a_prediction_that_was_not_waited_for_long_enough_is_still_starting(address: str) -> None:
    body = {"version": "1", "input": {**INPUT, "num_inference_steps": 90}}
    made = httpx.post(f"{address}/v1/predictions", json=body, headers={"prefer": "wait=1"}).json()
    assert made["status"] == "starting"  # the client takes "processing" for done
    assert httpx.post(made["urls"]["cancel"]).json()["status"] == "canceled"


def test_a_stream_tells_logs_output_and_the_end(client: replicate.Client) -> None:
    events = list(client.stream("ssd1b/toy", input=INPUT))
    kinds = [event.event.value for event in events]
    assert kinds[-2:] == ["output", "done"]
    assert set(kinds) == {"logs", "output", "done"}
    assert [event.id for event in events] == [str(number) for number in range(1, len(events) + 1)]
    assert str(events[-2].data).startswith("data:image/png;base64,")


@pytest.mark.usefixtures("slow")
def test_cancel_ends_it_within_a_step(client: replicate.Client, engine: ToyEngine) -> None:
    made = client.predictions.create(version="1", input={**INPUT, "num_inference_steps": 100})
    eventually(lambda: client.predictions.get(made.id).status == "processing")
    made.cancel()
    assert (made.status, made.output) == ("canceled", None)
    steps = engine.steps
    time.sleep(0.2)
    assert engine.steps <= steps + 1
    assert client.predictions.get(made.id).status == "canceled"
    events = list(made.stream())
    assert (events[-1].event.value, json.loads(events[-1].data)) == ("done", {"reason": "canceled"})


def test_what_the_engine_refuses_fails_the_prediction(client: replicate.Client) -> None:
    with pytest.raises(ModelError, match="rank 999"):
        client.run("ssd1b/toy", input={**INPUT, "lora": "unfit"})
    with pytest.raises(RuntimeError, match="rank 999"):
        list(client.stream("ssd1b/toy", input={**INPUT, "lora": "unfit"}))


@pytest.mark.parametrize(
    ("call", "status", "says"),
    [
        (lambda client: client.run("ssd1b/sdxl", input=INPUT), 404, "There is no model 'sdxl' here"),
        (lambda client: client.predictions.create(version="2", input=INPUT), 422, "serves ssd1b/toy, version '1'"),
        (lambda client: client.run("ssd1b/toy", input={"num_outputs": 1}), 422, "input.prompt"),
        (lambda client: client.run("ssd1b/toy", input={**INPUT, "num_outputs": 5}), 422, "less than or equal to 4"),
        (lambda client: client.run("ssd1b/toy", input={**INPUT, "scheduler": "PNDM"}), 422, "offered: K_EULER"),
        (lambda client: client.run("ssd1b/toy", input={**INPUT, "refine": "base_image_refiner"}), 422, "no_refiner"),
        (lambda client: client.run("ssd1b/toy", input={**INPUT, "replicate_weights": "x"}), 422, "registered adapter"),
        (lambda client: client.run("ssd1b/toy", input={**INPUT, "image": "http://127.0.0.1/x"}), 422, "not fetched"),
        (lambda client: client.run("ssd1b/toy", input={**INPUT, "image": "data:x"}), 422, "not fetched"),
        (lambda client: client.run("ssd1b/toy", input={**INPUT, "lora": "inc"}), 422, "offered: chalk, clay, ink"),
        (lambda client: client.predictions.get("nosuch"), 404, "kept for an hour"),
        (lambda client: client.predictions.get("..%2f..%2fetc%2fpasswd"), 404, "Not Found"),
        (lambda client: client.predictions.create(version="1", input=INPUT, webhook="file:///x"), 422, "pattern"),
    ],
)  # fmt: skip
def test_what_is_refused_at_once(client: replicate.Client, call: Any, status: int, says: str) -> None:
    with pytest.raises(ReplicateError) as info:
        call(client)
    assert info.value.status == status
    assert says in (info.value.detail or "")


def test_the_model_and_its_version(client: replicate.Client) -> None:
    model = client.models.get("ssd1b/toy")
    assert (model.owner, model.name) == ("ssd1b", "toy")
    assert model.latest_version is not None
    assert [one.id for one in model.versions.list()] == ["1"]
    schema = model.versions.get("1").openapi_schema
    assert "prompt" in schema["components"]["schemas"]["Input"]["properties"]
    assert [one.name for one in client.models.list()] == ["toy"]


def test_a_file_is_sent_and_a_picture_begins_from_it(client: replicate.Client, engine: ToyEngine) -> None:
    client.run("ssd1b/toy", input={**INPUT, "image": png(), "prompt_strength": 0.4})
    start = engine.requests[-1].start
    assert start is not None
    assert (start.picture, start.strength) == (png().getvalue(), 0.4)
    client.run("ssd1b/toy", input={**INPUT, "image": png()}, file_encoding_strategy="base64")
    assert engine.requests[-1].start is not None

    sent = client.files.create(png())
    assert sent.content_type == "image/png"
    assert client.files.get(sent.id).size == len(png().getvalue())
    assert sent.id in [one.id for one in client.files.list()]
    assert httpx.get(sent.urls["get"]).content == png().getvalue()
    assert client.files.delete(sent.id)
    with pytest.raises(ReplicateError, match="no file"):
        client.files.get(sent.id)
    page = httpx.get(client.files.create(io.BytesIO(b"<script>alert(1)</script>")).urls["get"])
    assert page.headers["content-type"] == "application/octet-stream"  # a browser keeps it and does not run it
    assert (page.headers["content-disposition"], page.headers["x-content-type-options"]) == ("attachment", "nosniff")


def test_behind_https_pictures_are_urls_that_are_served(engine: ToyEngine) -> None:
    with TestClient(routes(engine, "toy"), base_url="https://pictures.example") as http:
        made = http.post("/v1/predictions", json={"input": INPUT}, headers={"prefer": "wait"}).json()
        assert made["status"] == "succeeded"
        (url,) = made["output"]
        assert url.startswith("https://pictures.example/v1/files/")
        answer = http.get(url)
        assert (answer.headers["content-type"], answer.content[:4]) == ("image/png", b"\x89PNG")


def test_one_account_does_not_see_the_others_predictions_and_pays_for_its_own(engine: ToyEngine) -> None:
    accounts = FewCredits(1)
    with TestClient(routes(engine, "toy", accounts=accounts)) as http:
        mine, other = {"authorization": "Token sk-good"}, {"authorization": "Bearer sk-other"}
        made = http.post("/v1/predictions", json={"input": INPUT}, headers={**mine, "prefer": "wait"}).json()
        assert accounts.captured == [made["id"]]
        assert http.get(f"/v1/predictions/{made['id']}", headers=mine).status_code == 200
        for method, path in (("GET", ""), ("POST", "/cancel"), ("GET", "/stream")):
            assert http.request(method, f"/v1/predictions/{made['id']}{path}", headers=other).status_code == 404
        assert http.get("/v1/predictions", headers=other).json()["results"] == []
        assert http.get("/v1/predictions").status_code == 401
        secrets = {http.get("/v1/webhooks/default/secret", headers=one).json()["key"] for one in (mine, other)}
        assert len(secrets) == 2
        broke = http.post("/v1/predictions", json={"input": INPUT}, headers={**mine, "prefer": "wait"}).json()
        assert (broke["status"], "credits" in broke["error"]) == ("failed", True)


class Hook(BaseHTTPRequestHandler):
    """Keeps what it is told; refuses the first `refuses` messages."""

    told: list[httpx.Request]
    refuses = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        Hook.told.append(httpx.Request("POST", "http://hook", headers=dict(self.headers), content=body))
        Hook.refuses -= 1
        self.send_response(500 if Hook.refuses >= 0 else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def hook(port: int) -> Iterator[str]:
    Hook.told, Hook.refuses = [], 0
    with HTTPServer(("127.0.0.1", port), Hook) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook"
        server.shutdown()
        thread.join(5)


def test_a_webhook_is_told_signed_and_filtered(client: replicate.Client) -> None:
    secret = client.webhooks.default.secret()
    with hook(18999) as url:
        made = client.predictions.create(version="1", input=INPUT, webhook=url)
        eventually(lambda: any("completed" in one.headers["webhook-id"] for one in Hook.told))
        for one in Hook.told:
            Webhooks.validate(one, secret=secret, tolerance=60)
            assert json.loads(one.content)["id"] == made.id
        with pytest.raises(ValueError, match="signature"):
            Webhooks.validate(Hook.told[0], secret=WebhookSigningSecret(key="whsec_" + base64.b64encode(b"x").decode()))
        statuses = [json.loads(one.content)["status"] for one in Hook.told]
        assert {"processing", "succeeded"} <= set(statuses)

        Hook.told = []
        client.predictions.create(version="1", input=INPUT, webhook=url, webhook_events_filter=["completed"]).wait()
        eventually(lambda: Hook.told)
        time.sleep(0.1)
        (only,) = Hook.told
        assert json.loads(only.content)["output"][0].startswith("data:image/png")


def test_the_last_message_is_sent_again_and_private_addresses_are_never_told(
    monkeypatch: pytest.MonkeyPatch, engine: ToyEngine, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("serve.front.webhooks.DELAYS_S", (0.01, 0.01))
    with hook(0) as url:
        Hook.refuses = 2
        port = url.split(":")[2].split("/")[0]
        allowed = routes(engine, "toy", webhook_hosts=[f"127.0.0.1:{port}"])
        with TestClient(allowed) as http:
            body = {"input": INPUT, "webhook": url, "webhook_events_filter": ["completed"]}
            http.post("/v1/predictions", json=body, headers={"prefer": "wait"})
            eventually(lambda: len(Hook.told) == 3)
            assert len({one.headers["webhook-id"] for one in Hook.told}) == 1
        Hook.told = []
        with TestClient(routes(engine, "toy")) as http:
            made = http.post("/v1/predictions", json=body, headers={"prefer": "wait"}).json()
            assert made["status"] == "succeeded"
            eventually(lambda: any("webhook_hosts does not name 127.0.0.1" in one.message for one in caplog.records))
        assert Hook.told == []
    with pytest.raises(ValueError, match="no scheme, no path"):
        routes(engine, "toy", webhook_hosts=["http://inside/"])


def test_a_front_that_dies_leaves_its_predictions_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: ToyEngine
) -> None:
    monkeypatch.setattr(predictions, "LEASE_S", 0.3)
    monkeypatch.setattr(runner, "ROUND_S", 0.05)
    file = tmp_path / "predictions.db"
    store = Predictions(file)
    told = {"prompt": "x", "num_inference_steps": 2, "seed": 7}
    run = {"account": "local", "caller": {"name": "local", "admin": True}, "base": "", "webhooks": []}
    state = {"id": "left", "model": "ssd1b/toy", "version": "1", "input": told, "output": None, "logs": "",
        "error": None, "status": "processing", "metrics": {}, "created_at": "", "started_at": None,
        "completed_at": None, "run": run}  # fmt: skip
    store.add("local", state, "a front that was killed")
    store.close()
    with TestClient(routes(engine, "toy", storage=file)) as http:
        eventually(lambda: http.get("/v1/predictions/left").json()["status"] == "succeeded")
        assert len(http.get("/v1/predictions/left").json()["output"]) == 1
    assert engine.requests[-1].seeds == (7,)
    with TestClient(routes(engine, "toy", storage=file)) as http:  # and it is still there after a restart
        assert http.get("/v1/predictions/left").json()["status"] == "succeeded"


def test_a_front_that_ends_well_gives_its_predictions_back_at_once(tmp_path: Path) -> None:
    engine, file = ToyEngine(step_s=0.02), tmp_path / "predictions.db"
    with TestClient(routes(engine, "toy", storage=file)) as http:
        made = http.post("/v1/predictions", json={"input": {**INPUT, "num_inference_steps": 100}}).json()
        eventually(lambda: engine.steps)
    engine.painter.step_s = 0.0
    with TestClient(routes(engine, "toy", storage=file)) as http:
        eventually(lambda: http.get(f"/v1/predictions/{made['id']}").json()["status"] == "succeeded")


def test_a_prediction_waits_for_room(
    client: replicate.Client, engine: ToyEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "NO_ROOM_S", 0.05)
    engine.errors = [BackPressureError(num_queued_requests=9, max_queued_requests=9)] * 3
    made = client.predictions.create(version="1", input=INPUT)
    made.wait()
    assert (made.status, engine.errors) == ("succeeded", [])
    monkeypatch.setattr(runner, "PATIENCE_S", 0.0)
    engine.errors = [BackPressureError(num_queued_requests=9, max_queued_requests=9)]
    made = client.predictions.create(version="1", input=INPUT)
    made.wait()
    assert (made.status, made.error) == ("failed", "Too many requests wait: try again soon")


def test_what_was_drawn_is_kept_though_too_much_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "MOST_FILES", 1)
    with TestClient(routes(ToyEngine(), "toy")) as http:
        for _ in range(2):
            made = http.post("/v1/predictions", json={"input": INPUT}, headers={"prefer": "wait"}).json()
            assert made["status"] == "succeeded"
        send = {"content": ("in.png", png())}
        assert [http.post("/v1/files", files=send).status_code for _ in range(2)] == [201, 429]
        made = http.post("/v1/predictions", json={"input": INPUT}, headers={"prefer": "wait"}).json()
        assert made["status"] == "succeeded"


def test_a_replica_that_dies_is_not_seen(client: replicate.Client, engine: ToyEngine) -> None:
    engine.errors = [ActorDiedError()]
    assert client.run("ssd1b/toy", input=INPUT)
    assert not engine.errors


def test_the_store_keeps_for_an_hour_and_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Predictions(None)
    state = {"id": "a", "status": "starting", "output": None}
    store.add("me", state, "front")
    monkeypatch.setattr(predictions, "MOST_WAITING", 1)
    with pytest.raises(Exception, match="1 predictions wait already"):
        store.add("me", {**state, "id": "b"}, "front")
    store.add("you", {**state, "id": "c"}, "front")
    assert store.get("a", "you") is None
    assert store.renew("front", ["a", "c", "nosuch"]) == {"a", "c"}
    assert store.claim("other") == []
    assert store.change("a", status="canceled") is not None
    assert store.change("a", status="succeeded") is None  # what is done stays as it is
    assert store.renew("front", ["a", "c"]) == {"c"}
    store.let_go("front")
    assert store.claim("other") == ["c"]
    kept = store.keep_file("me", "x", "image/png", b"bytes")
    store.clean()
    assert store.get("a") is not None
    now = time.time()
    monkeypatch.setattr("serve.front.predictions.time.time", lambda: now + 3700)
    store.clean()
    assert (store.get("a"), store.file(kept.id)) == (None, None)
    assert store.get("c") is not None
