"""The accounts' command: what each verb prints, and how it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serve.accounts.__main__ import main, since

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def own_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SSD1B_ACCOUNTS", raising=False)
    return home


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(list(arguments))
    return capsys.readouterr().out.rstrip("\n")


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(said(capsys, *arguments, "--json"))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as info:
        main(list(arguments))
    assert info.value.code == 2
    return capsys.readouterr().err


def test_the_story_of_an_account(capsys: pytest.CaptureFixture[str]) -> None:
    opened = told(capsys, "add", "amy", "--credits", "2.5", "--images-per-minute", "60", "--admin")
    assert opened["credits"] == 2.5
    key, *rest = said(capsys, "key", "amy").splitlines()
    assert key.startswith("sk-")
    assert "shown this once" in rest[0]
    short = told(capsys, "key", "amy", "--days", "2")
    assert told(capsys, "grant", "amy", "10")["credits"] == 12.5
    assert told(capsys, "grant", "amy", "-12.5")["credits"] == 0
    said(capsys, "revoke", key)
    (amy,) = told(capsys, "list")
    assert (amy["images_per_minute"], amy["requests_per_minute"], amy["admin"]) == (60, None, True)
    assert [one["state"].split()[0] for one in amy["keys"]] == ["revoked", "good"]
    listed = said(capsys, "list")
    assert "amy: 0 credits, 60 images and any requests per minute, interactive, admin" in listed
    assert short["prefix"] in listed
    assert key not in listed
    assert "in all" in said(capsys, "usage", "amy", "--since", "7d")
    assert told(capsys, "usage", "amy")["requests"] == 0
    assert said(capsys, "check") == "the ledger agrees with itself"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["add", "amy"], "there is an account amy already"),
        (["add", "a b"], "'a b' is no name"),
        (["add", "ben", "--credits", "lots"], "'lots' is no amount"),
        (["add", "ben", "--credits", "-1"], "cannot be taken away"),
        (["add", "ben", "--images-per-minute", "0"], "images_per_minute is 0"),
        (["key", "ami"], "did you mean 'amy'?"),
        (["key", "amy", "--days", "0"], "expired from the start"),
        (["revoke", "nothing"], "no key begins with sk-nothing"),
        (["grant", "amy", "-7"], "amy has 1000 mills"),
        (["usage", "amy", "--since", "once"], "write a day"),
    ],
)
def test_refusals(capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    main(["add", "amy", "--credits", "1"])
    capsys.readouterr()
    assert says in refused(capsys, *arguments)
    assert [account["name"] for account in told(capsys, "list")] == ["amy"]


def test_asking_makes_no_database(capsys: pytest.CaptureFixture[str], own_home: Path) -> None:
    for arguments in (["list"], ["key", "amy"], ["check"]):
        assert "no accounts yet" in refused(capsys, *arguments)
    assert list(own_home.iterdir()) == []


def test_a_database_that_does_not_answer(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSD1B_ACCOUNTS", "postgresql://amy:secret@127.0.0.1:1/accounts")
    error = refused(capsys, "list")
    assert "does not answer" in error
    assert "secret" not in error


def test_a_ledger_that_was_tampered_with(capsys: pytest.CaptureFixture[str], own_home: Path) -> None:
    import sqlite3

    main(["add", "amy", "--credits", "1"])
    with sqlite3.connect(own_home / "accounts.db") as connection:
        connection.execute("UPDATE entries SET amount = 5")
    with pytest.raises(SystemExit) as info:
        main(["check"])
    assert info.value.code == 1
    assert "does not follow" in capsys.readouterr().out


def test_days_and_spans() -> None:
    assert since("7d", 1e6) == 1e6 - 7 * 86_400
    assert since("1970-01-02", 0) == 86_400
    assert since("1970-01-02T00:00:00+01:00", 0) == 82_800


def test_it_starts_as_a_module(own_home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serve.accounts", "add", "amy"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, env={**os.environ, "SSD1B_HOME": str(own_home)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert (own_home / "accounts.db").exists()
