"""Notices: what a machine says before it goes reaches the worker, and the next group stays away from it."""

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from ssd1b.training import notice
from ssd1b.training.notice import FileSource, Notice, UrlSource


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notice, "_told", [])


class Metadata(BaseHTTPRequestHandler):
    """A metadata server: absent, a plain word, or behind a token."""

    says: ClassVar[dict[str, str | None]] = {}
    tokens_given: ClassVar[int] = 0

    def do_PUT(self) -> None:
        Metadata.tokens_given += 1
        self.answer(f"token-{Metadata.tokens_given}")

    def do_GET(self) -> None:
        said = self.says.get(self.path)
        if self.path == "/guarded" and self.headers.get("X-aws-ec2-metadata-token") != f"token-{self.tokens_given}":
            self.send_error(401)
        elif said is None:
            self.send_error(404)
        else:
            self.answer(said)

    def answer(self, text: str) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def metadata() -> Iterator[str]:
    Metadata.says, Metadata.tokens_given = {}, 0
    server = HTTPServer(("127.0.0.1", 0), Metadata)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_file_is_a_notice_once_it_is_there(tmp_path: Path) -> None:
    file = FileSource(path=tmp_path / "spot")
    assert file.look() is None
    file.path.write_text("")
    assert file.look() == "spot"
    file.path.write_text("two minutes\n")
    assert file.look() == "two minutes"


@pytest.mark.parametrize(
    ("said", "understood"),
    [(None, None), ("FALSE", None), ("", None), ("TRUE", "TRUE"), ('{"action":"stop"}', '{"action":"stop"}')],
)
def test_a_page_is_a_notice_when_it_says_so(metadata: str, said: str | None, understood: str | None) -> None:
    Metadata.says["/preempted"] = said
    assert UrlSource(url=f"{metadata}/preempted").look() == understood


def test_a_page_behind_a_token_is_asked_with_one(metadata: str) -> None:
    Metadata.says["/guarded"] = "terminate"
    with pytest.raises(OSError, match="401"):
        UrlSource(url=f"{metadata}/guarded").look()
    assert UrlSource(url=f"{metadata}/guarded", token_url=f"{metadata}/token").look() == "terminate"
    assert Metadata.tokens_given == 1


def test_sources_have_names() -> None:
    assert notice.source("file:/run/spot-{node}", "ab12") == FileSource(path=Path("/run/spot-ab12"))
    assert notice.source("https://host/x") == UrlSource(url="https://host/x")
    assert notice.source("aws") == notice.CLOUDS["aws"]
    with pytest.raises(ValueError, match=r"no spot notices from 'azure': say aws, gcp, file:/path"):
        notice.source("azure")


def test_a_watcher_tells_once_and_marks_its_node(tmp_path: Path) -> None:
    notice.watch([FileSource(path=tmp_path / "spot")], tmp_path / "run", "node-1", every_s=0.01)
    time.sleep(0.1)
    assert notice.told() is None
    (tmp_path / "spot").write_text("soon")
    wait_for_notice()
    assert notice.told() == Notice(kind="spot", message="soon")
    time.sleep(0.05)
    assert len(notice._told) == 1
    assert notice.gone_soon(tmp_path / "run") == {"node-1"}


def test_a_source_that_cannot_be_asked_is_told_of_and_asked_again(metadata: str, tmp_path: Path) -> None:
    Metadata.says["/guarded"] = "terminate"
    broken = UrlSource(url=f"{metadata}/guarded")
    with warnings.catch_warnings(record=True) as warned:
        notice.watch([broken, FileSource(path=tmp_path / "spot")], tmp_path, "node-1", every_s=0.01)
        time.sleep(0.2)
        (tmp_path / "spot").write_text("soon")
        wait_for_notice()
    assert len(warned) == 1
    assert "cannot be read from UrlSource" in str(warned[0].message)
    assert "401" in str(warned[0].message)
    assert notice.told() == Notice(kind="spot", message="soon"), "one broken source must not hide another"


def wait_for_notice() -> None:
    end = time.monotonic() + 5
    while notice.told() is None:
        assert time.monotonic() < end, "nobody told"
        time.sleep(0.01)


def test_a_node_is_avoided_only_as_long_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert notice.gone_soon(tmp_path) == set()
    notice.going(tmp_path, "a", "terminated")
    notice.going(tmp_path, "b", "spot")
    notice.going(tmp_path, "b", "spot")
    assert notice.gone_soon(tmp_path) == {"a", "b"}
    later = time.time() + (notice.GOING_S["terminated"] + notice.GOING_S["spot"]) / 2
    monkeypatch.setattr(time, "time", lambda: later)
    assert notice.gone_soon(tmp_path) == {"b"}


LISTENER = """
import sys, time
from pathlib import Path
from ssd1b.training import notice
notice.listen(Path(sys.argv[1]), "node-1")
print("listening", flush=True)
while notice.told() is None:
    time.sleep(0.01)
print(notice.told().kind, *notice.gone_soon(Path(sys.argv[1])), flush=True)
time.sleep(float(sys.argv[2]))
print(*notice.gone_soon(Path(sys.argv[1])), flush=True)
"""


def test_sigterm_asks_instead_of_ending(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LISTENER, str(tmp_path), str(notice.MEANT_S + 0.3)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        os.kill(process.pid, signal.SIGTERM)
        assert process.stdout.readline() == "terminated\n"
        assert process.stdout.readline() == "node-1\n", "it is still there: the machine was meant"
        assert process.wait(10) == 0
    finally:
        process.kill()


def test_a_worker_that_ray_ends_says_nothing_of_its_node(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", LISTENER, str(tmp_path), "60"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    os.kill(process.pid, signal.SIGTERM)
    assert process.stdout.readline() == "terminated\n"
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    time.sleep(notice.MEANT_S + 0.2)
    assert notice.gone_soon(tmp_path) == set()
