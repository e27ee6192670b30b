"""The board of many replicas, also while they are not of one mind."""

from serve.board import board_of


def test_nobody_serves() -> None:
    board = board_of("toy", [])
    assert board["state"].startswith("no replica runs")
    assert board | {"state": ""} == {"model": "toy", "state": "", "version": None, "canary": None, "replicas": []}


def test_the_version_that_most_serve() -> None:
    canary = {"version": "3", "share": 0.1}
    replicas = [
        {"version": "1", "canary": None},
        {"version": "2", "canary": canary},
        {"version": "2", "canary": canary},
    ]
    board = board_of("toy", replicas)
    assert (board["state"], board["version"], board["canary"], board["replicas"]) == ("up", "2", canary, replicas)
    assert board_of("toy", replicas[:1])["canary"] is None
