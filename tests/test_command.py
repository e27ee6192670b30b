"""The command line of every job: settings by name, errors that help, JSON last."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from ssd1b.command import configure, main


@dataclass(frozen=True, kw_only=True)
class Optim:
    lr: float = 1e-3
    steps: int = 10


@dataclass(frozen=True, kw_only=True)
class Stage:
    name: str
    optim: Optim


@dataclass(frozen=True, kw_only=True)
class Config:
    name: str = "x"
    seed: int | None = None
    clean: bool = False
    workers: tuple[int, int] = (1, 2)
    styles: tuple[str, ...] = ("flat",)
    optim: Optim = Optim()
    stages: tuple[Stage, ...] = (Stage(name="mid", optim=Optim()), Stage(name="up", optim=Optim()))


RECIPES: dict[str, Callable[[], Config]] = {"nano": Config, "debug": lambda: Config(name="debug")}


def test_a_recipe_without_settings_is_itself() -> None:
    assert configure(RECIPES, "debug", []) == Config(name="debug")


@pytest.mark.parametrize(
    ("setting", "read", "expected"),
    [
        ("name=run 1", lambda config: config.name, "run 1"),
        ("name=7", lambda config: config.name, "7"),
        ("name=a=b", lambda config: config.name, "a=b"),
        ("seed=3", lambda config: config.seed, 3),
        ("seed=null", lambda config: config.seed, None),
        ("clean=true", lambda config: config.clean, True),
        ("optim.lr=2e-5", lambda config: config.optim.lr, 2e-5),
        ("workers=[2, 4]", lambda config: config.workers, (2, 4)),
        ('styles=["retro", "flat"]', lambda config: config.styles, ("retro", "flat")),
        ("stages.1.optim.steps=99", lambda config: config.stages[1].optim.steps, 99),
        ("stages.0.name=first", lambda config: config.stages[0].name, "first"),
    ],
)
def test_a_setting_is_read_as_its_fields_type(setting: str, read: Callable[[Config], object], expected: object) -> None:
    assert read(configure(RECIPES, "nano", [setting])) == expected


def test_a_setting_leaves_all_else_and_later_ones_win() -> None:
    config = configure(RECIPES, "nano", ["stages.1.optim.lr=1", "optim.steps=5", "optim.steps=6"])
    assert config.stages[0] == Config().stages[0]
    assert config.stages[1].optim == Optim(lr=1.0)
    assert config.optim.steps == 6


@pytest.mark.parametrize(
    ("recipe", "setting", "message"),
    [
        ("nanoo", "", r"no recipe 'nanoo' \(did you mean 'nano'\?\); recipes: debug, nano"),
        ("nano", "optm.lr=1", r"no key 'optm' \(did you mean 'optim'\?\)"),
        ("nano", "optim.learning_rate=1", r"optim.learning_rate: no key .*keys: lr, steps"),
        ("nano", "stages.2.name=x", r"'2' is not an index; it has 2 entries, 0 to 1"),
        ("nano", "stages.mid.name=x", r"'mid' is not an index"),
        ("nano", "stages.0=x", r"name a field of entry 0: name, optim"),
        ("nano", "optim.steps=many", r"--set optim.steps=many: .*integer"),
        ("nano", "optim.steps=1.5", r"--set optim.steps=1.5: .*"),
        ("nano", "workers=[1]", r"--set workers=\[1\]: .*"),
        ("nano", "name", r"write key=value, for example --set name="),
    ],
)
def test_what_is_wrong_is_named(recipe: str, setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        configure(RECIPES, recipe, [setting] if setting else [])


def test_the_last_line_is_json_with_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    main(RECIPES, lambda config: {"seed": config.seed}, ["nano", "--set", "seed=4"])
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["seed"] == 4
    assert last["seconds"] >= 0


def test_what_a_user_can_mend_ends_with_a_message_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    def job(_: Config) -> dict[str, object]:
        raise ValueError("no corpus at x: run jobs.ingest")

    with pytest.raises(SystemExit) as ended:
        main(RECIPES, job, ["nano"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: no corpus at x: run jobs.ingest\n"


def test_a_programmers_error_keeps_its_traceback() -> None:
    def job(_: Config) -> dict[str, object]:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        main(RECIPES, job, ["nano"])
