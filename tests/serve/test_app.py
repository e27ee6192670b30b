"""The command and the builder, as far as they go without Ray: settings, refusals, the lines it prints."""

import re
import socket
import subprocess

import pytest
import ray
from pydantic import ValidationError
from ray.serve import Application
from registry import register_nano

from serve import upkeep
from serve.app import build, main, settings_of
from serve.settings import Settings
from serve.upkeep import is_loopback, require_answer, require_free, told


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command, which is to end with status 2; return what it says."""
    with pytest.raises(SystemExit) as info:
        main(list(arguments))
    assert info.value.code == 2
    return capsys.readouterr().err


@pytest.mark.usefixtures("home")
def test_up_without_a_champion_names_the_jobs_and_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    before = ray.is_initialized()
    said = failing(capsys, "up")
    assert "nothing to serve" in said
    assert "make demo" in said
    assert ray.is_initialized() == before


def test_verbs_that_need_a_cluster_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert "RAY_ADDRESS" in failing(capsys, "up", "--detach")
    assert "RAY_ADDRESS" in failing(capsys, "down")
    assert "RAY_ADDRESS" in failing(capsys, "status")
    assert "invalid choice" in failing(capsys, "upp")


def test_a_port_that_is_taken() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ValueError, match="choose another --port"):
            require_free("127.0.0.1", other.getsockname()[1])


@pytest.mark.usefixtures("home")
def test_the_builder_gives_an_application() -> None:
    register_nano()
    application = build(Settings(max_replicas=3, fronts=2, open=True))
    assert isinstance(application, Application)
    assert application._bound_deployment.num_replicas == 2


def test_an_address_that_does_not_answer_is_not_praised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "ANSWER_S", 0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(ValueError, match="keeps the address"):
            require_answer(f"http://127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.usefixtures("home")
def test_strangers_are_not_served_without_accounts(capsys: pytest.CaptureFixture[str]) -> None:
    register_nano()
    assert "python -m serve.accounts add NAME" in failing(capsys, "up", "--host", "0.0.0.0")
    with pytest.raises(ValueError, match="or set open to true"):
        build(Settings())
    database = "SSD1B_ACCOUNTS"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(database, "sqlite:////nowhere/at/all.db")
        assert isinstance(build(Settings()), Application)  # accounts that are away are accounts


def test_addresses_of_this_machine() -> None:
    here, elsewhere = (
        ("127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"),
        ("0.0.0.0", "::", "10.0.0.1", "example.org"),
    )
    assert [is_loopback(host) for host in (*here, *elsewhere)] == [True] * len(here) + [False] * len(elsewhere)


def test_settings_by_the_command_line() -> None:
    made = settings_of(["max_replicas=4", "watermark=mine", 'webhook_hosts=["hooks.lan:8080"]', "adapters=/loras"])
    assert (made.max_replicas, made.watermark, made.webhook_hosts) == (4, "mine", ("hooks.lan:8080",))
    assert str(made.adapters) == "/loras"


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ("max_replica=4", "did you mean 'max_replicas'"),
        ("max_replicas", "did you mean"),
        ("max_replicas=none", "given: 'none'"),
        ("drain_s=0", "drain_s: Input should be greater than 0"),
        ("c2pa_key=/k.pem", "go together"),
    ],
)
def test_a_setting_that_cannot_be_is_named(capsys: pytest.CaptureFixture[str], pair: str, says: str) -> None:
    assert says in failing(capsys, "up", "--set", pair)


def test_settings_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ValidationError, match="max_replica"):
        Settings.model_validate({"max_replica": 3})


def test_the_printed_decoder_decodes() -> None:
    """The part of the curl lines after the pipe, run by a shell."""
    lines = told("ssd1b-nano", "127.0.0.1", 8000, free=True)
    command = re.search(r"\| (python3 -c '.*?') > apple\.png", lines)
    assert command
    body = b'{"data": [{"b64_json": "aGVsbG8="}]}'
    made = subprocess.run(["bash", "-c", command[1]], input=body, capture_output=True, check=True, timeout=30)
    assert made.stdout == b"hello"
    assert "this machine only" in lines
    assert "http://127.0.0.1:9000/" in told("m", "0.0.0.0", 9000, free=False)
