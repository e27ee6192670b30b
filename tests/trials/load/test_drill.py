"""The faults are real: what is said to be locked is, what is said to be killed is, what is no refusal is told."""

import os
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Response
from test_driver import listening

from ssd1b.recipes.serving import RECIPES, ServeFaults, serve_faults_smoke
from ssd1b.trials.load import harm
from ssd1b.trials.load.contestants import Server, kill
from ssd1b.trials.load.drill import drill
from ssd1b.trials.load.harm import FAULTS, Endpoint, killed, locked, raise_limit


def endpoint(url: str = "http://127.0.0.1:1", pid: int = 0, connections: int = 50) -> Endpoint:
    server = Server(url=url, pid=pid or os.getpid(), log=Path("/dev/null"))
    return Endpoint(server=server, home=Path(), key="sk-1", connections=connections)


def strict() -> FastAPI:
    """A server that refuses everything but a question after its health."""
    app = FastAPI()
    app.get("/healthz")(lambda: {"status": "ok"})

    @app.post("/{path:path}")
    async def refuse(path: str) -> Response:
        return Response(f"no {path}", 400)

    return app


@pytest.fixture
def _briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harm, "AWAY_S", 0.3)


@pytest.mark.usefixtures("_briefly")
def test_a_locked_database_lets_nobody_write(tmp_path: Path) -> None:
    file, tried = tmp_path / "x.db", []
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE t (x)")

    def write() -> None:
        time.sleep(0.1)
        with sqlite3.connect(file, timeout=0) as other:
            try:
                other.execute("INSERT INTO t VALUES (1)")
            except sqlite3.OperationalError as error:
                tried.append(str(error))

    thread = threading.Thread(target=write)
    thread.start()
    assert "x.db for 0.3 s: database is locked" in locked(file)
    thread.join()
    assert tried == ["database is locked"]
    with sqlite3.connect(file) as connection:
        connection.execute("INSERT INTO t VALUES (1)")


def test_a_kill_is_proven_by_the_process_that_takes_its_place() -> None:
    """The victim's parent starts another, as Serve does."""
    parent = subprocess.Popen([sys.executable, "-c", "import subprocess\nwhile True: subprocess.run(['sleep', '61'])"])
    try:
        there = endpoint(pid=parent.pid)
        while not there.pids("sleep 61"):
            time.sleep(0.05)
        (before,) = there.pids("sleep 61")
        assert "killed 1 of 1; as many again after" in killed(there, "sleep 61", 99)
        (after,) = there.pids("sleep 61")
        assert after != before
        with pytest.raises(RuntimeError, match="no process is called ray::Nobody"):
            killed(there, "ray::Nobody", 1)
    finally:
        left = endpoint(pid=parent.pid).server.processes()
        parent.kill()
        parent.wait()
        kill(left)


@pytest.mark.usefixtures("_briefly")
def test_bad_requests_are_counted_and_refused() -> None:
    with listening(strict()) as url:
        there = endpoint(url)
        assert FAULTS["malformed"](there) == f"{len(harm.MALFORMED)} malformed bodies, refused with 11 x 400"
        assert FAULTS["path_tricks"](there) == f"{len(harm.TRICKS)} names, refused with 12 x 400"
        assert FAULTS["idle_connections"](there) == "50 of 50 connections"
        assert FAULTS["slow_bodies"](there).startswith("20 clients sent")
        assert "nobody came to them" in FAULTS["private_urls"](there)


@pytest.mark.usefixtures("_briefly")
def test_a_server_that_follows_addresses_is_caught() -> None:
    app = FastAPI()

    @app.post("/v1/predictions")
    def predict(body: dict[str, object]) -> Response:
        if "webhook" not in body and "127.0.0.1" in (url := body["input"]["image"]):  # type: ignore[index]
            with pytest.raises(httpx.HTTPError):
                httpx.get(url)
        return Response("no", 400)

    with listening(app) as url, pytest.raises(RuntimeError, match=r"came to a private address.*GET /a.png"):
        FAULTS["private_urls"](endpoint(url))


def test_what_is_no_refusal_is_told() -> None:
    answers = [httpx.Response(400), httpx.Response(200, text="a picture")]
    with pytest.raises(RuntimeError, match="names: answered 200 instead of a refusal: a picture"):
        endpoint().refuses(answers, "names")


def test_the_limit_of_open_files_is_raised_as_far_as_it_goes() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert raise_limit(before[0] + 1) >= min(before[0] + 1001, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_recipes_name_faults_that_there_are() -> None:
    named = [config for config in (recipe() for recipe in RECIPES.values()) if isinstance(config, ServeFaults)]
    assert len(named) == 2
    assert all(name in FAULTS for config in named for name in config.faults)
    with pytest.raises(ValueError, match="no fault 'earthquake'"):
        drill(ServeFaults(faults=("earthquake",)))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_the_endpoint_suffers_and_loses_nothing() -> None:
    result = drill(serve_faults_smoke())
    assert (result["failed"], result["lost"], result["charged_twice"]) == (0, 0, 0)
    replica = next(one for one in result["faults"] if one["fault"] == "replica")
    assert replica["proof"].startswith("killed 1 of 2")
    assert replica["unpaid"] == 0
    assert replica["worst_psnr_db"] is None or replica["worst_psnr_db"] > 40
