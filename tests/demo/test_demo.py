"""The demo's own parts: reading what jobs print, asking an endpoint, the table."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from ssd1b.command import configure
from ssd1b.demo.endpoint import ask
from ssd1b.demo.story import tell
from ssd1b.demo.submit import last_json
from ssd1b.demo.table import table
from ssd1b.recipes.demo import RECIPES, nano


def test_the_last_json_object_counts() -> None:
    assert last_json(["x", '{"a": 1}', '{"b": 2}', "{not json", "[3]", "bye"]) == {"b": 2}
    assert last_json(["nothing", "{broken"]) is None


class Endpoint(BaseHTTPRequestHandler):
    """Answers like the Images route: a picture for "red", a refusal for anything else."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        out = io.BytesIO()
        Image.new("RGB", (4, 4), "red").save(out, "PNG")
        if self.path == "/v1/images/generations" and body["prompt"] == "red":
            status, answer = 200, {"data": [{"b64_json": base64.b64encode(out.getvalue()).decode()}]}
        else:
            status, answer = 400, {"error": {"message": "no such colour"}}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_served_picture_is_read_and_timed(endpoint: str) -> None:
    served = ask(endpoint, {"prompt": "red"})
    assert served.picture.getpixel((0, 0)) == (255, 0, 0)
    assert served.latency_s > 0


def test_a_refusal_is_told_in_the_endpoints_words(endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"answered 400: .*no such colour"):
        ask(endpoint, {"prompt": "blue"})


def test_without_a_cluster_the_demo_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with pytest.raises(ValueError, match="run `make demo`"):
        tell(nano())


def test_a_steps_field_can_be_set() -> None:
    config = configure(RECIPES, "nano", ["steps.0.entrypoint=python -m jobs.ingest debug", "seed=3"])
    assert config.steps[0].entrypoint == "python -m jobs.ingest debug"
    assert config.seed == 3


def test_the_table_shows_what_the_jobs_measured() -> None:
    config = nano()
    stage = {
        "teacher": "nano",
        "steps": 9,
        "first_loss": 1.5,
        "last_loss": 0.25,
        "student_parameters": 60,
        "step_s": 0.5,
    }
    results = {step.name: {"wall_s": 3} for step in config.steps}
    results["ingest"] |= {"rows_in": 10, "rows_kept": 9, "rejected": {"image_corrupt": 1}}
    results["distill"] |= {"samples": 99, "repeated": 0, "missed": 0, "restarts": 1, "redone_steps": 2}
    results["distill"] |= {"teacher_parameters": 100, "student_parameters": 60, "stages": {"mid": stage}}
    results["evaluate"] |= {"step_ms_teacher": 30.0, "step_ms_student": 20.0, "step_speedup": 1.5}
    results["promote"] |= {"gates": {"score_kept": {"value": 0.98, "passes": True}}}
    results["export"] |= {"engine": "e", "batch": 4, "step_ms": {"e": {"teacher": 9.0, "student": 6.0}}}
    results["latency_s"] = {"plain": [0.1, 0.3, 0.2], "lora": [0.4]}
    lines = table(config, results).splitlines()
    assert [line.split() for line in lines if line.startswith("UNet parameters")] == [
        ["UNet", "parameters", "100", "60", "0.60"]
    ]
    assert any("median 200 ms, worst 300 ms" in line for line in lines)
    assert any(line.split() == ["score_kept", "0.980", "holds"] for line in lines)
    assert "elastic order: 99 samples, 0 repeated, 0 missed, 1 restarts, 2 steps redone" in lines
    assert any("9 kept of 10" in line and "image_corrupt" in line for line in lines)
