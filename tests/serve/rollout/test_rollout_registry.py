"""Moves in a real MLflow registry, by the command an operator types."""

import json
import shutil

import pytest

from serve.rollout import registry
from serve.rollout.__main__ import main
from serve.rollout.target import Canary, Target
from ssd1b import tracking

MODEL = "toy"


@pytest.fixture
def versions(home, empty_store, tmp_path_factory):
    """Versions 1, 2 and 3 of a model; 1 is the champion."""
    shutil.copy(empty_store, home / "mlflow.db")
    folder = tmp_path_factory.mktemp("model")
    (folder / "weights").write_text("x")
    made = [tracking.register(MODEL, folder, run_id=None, alias=None, tags={}) for _ in range(3)]
    tracking.crown(MODEL, "champion", made[0])


def command(capsys, *arguments):
    main([*arguments, "--model", MODEL])
    words, line = capsys.readouterr().out.strip().splitlines()
    return words, json.loads(line)


@pytest.mark.usefixtures("versions")
def test_a_canary_is_tried_and_becomes_champion_and_there_is_a_way_back(capsys):
    words, told = command(capsys, "canary", "--version", "2", "--share", "0.25")
    assert words == "toy: version 1 is the champion; version 2 on 25% of the requests"
    assert registry.read_target(MODEL) == Target("1", Canary("2", 0.25))
    assert told == {"model": MODEL, "champion": "1", "canary": {"version": "2", "share": 0.25}}
    assert command(capsys, "promote")[1] == {"model": MODEL, "champion": "2", "canary": None}
    assert command(capsys, "promote", "--version", "3")[1]["champion"] == "3"
    assert command(capsys, "rollback")[1]["champion"] == "2"
    assert command(capsys, "rollback")[1]["champion"] == "1"
    with pytest.raises(SystemExit):
        main(["rollback", "--model", MODEL])
    assert "models:/toy/1 does not say which version it replaced" in capsys.readouterr().err
    assert command(capsys, "status")[1]["champion"] == "1"


@pytest.mark.usefixtures("versions")
def test_end_gives_all_requests_back(capsys):
    command(capsys, "canary", "--version", "3", "--share", "1")
    assert command(capsys, "end")[1] == {"model": MODEL, "champion": "1", "canary": None}
    assert command(capsys, "end")[1]["canary"] is None


@pytest.mark.usefixtures("versions")
def test_a_move_by_other_hands_can_be_taken_back_too():
    """A click in MLflow's page moves the alias and tells nobody; whoever watches notes the way back."""
    before = registry.look(MODEL, None)
    tracking.set_alias(MODEL, "champion", "3")
    assert registry.look(MODEL, before) == Target("3")
    assert registry.rollback(MODEL) == Target("1")
    assert registry.look(MODEL, Target("3")) == Target("1")
    with pytest.raises(ValueError, match="does not say"):
        registry.rollback(MODEL)


@pytest.mark.usefixtures("versions")
def test_the_champion_cannot_be_its_own_canary():
    assert registry.start_canary(MODEL, "1", 0.5) == Target("1")


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("canary",), "say which version"),
        (("canary", "--version", "9"), "no models:/toy/9 in the registry"),
        (("canary", "--version", "2", "--share", "1.5"), "a share of 1.5 is none: give a number from 0 to 1"),
        (("canary", "--version", "2", "--share", "nan"), "a share of nan is none"),
        (("promote",), "no models:/toy@canary"),
        (("promote", "--version", "two"), "'models:/toy/two' is not a registry uri"),
    ],
)
def test_what_cannot_be_done_changes_nothing_and_says_why(capsys, arguments, says):
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--model", MODEL])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
    assert registry.read_target(MODEL) == Target("1")


@pytest.mark.usefixtures("versions")
def test_a_share_that_somebody_wrote_by_hand_is_checked():
    registry.start_canary(MODEL, "2", 0.5)
    tracking.tag(MODEL, "2", "canary_share", "half")
    with pytest.raises(ValueError, match="'half': give a number from 0 to 1"):
        registry.read_target(MODEL)


@pytest.mark.usefixtures("home")
def test_a_model_without_a_champion():
    with pytest.raises(ValueError, match="no models:/toy@champion"):
        registry.read_target(MODEL)
