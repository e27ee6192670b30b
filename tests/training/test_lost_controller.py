"""Ray Train's controller may be lost too: another is started as long as the run gets further."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError

from ssd1b.training import trainer
from ssd1b.training.trainer import TRIES

Fit = Callable[[], None]


def train(monkeypatch: pytest.MonkeyPatch, fits: list[Fit], steps: list[int]) -> int:
    """Run `trainer.train` with these controllers and newest checkpoints; return how many controllers ran."""
    ran: list[Fit] = []

    def next_trainer(*_: object) -> SimpleNamespace:
        ran.append(fits[len(ran)])
        return SimpleNamespace(fit=ran[-1])

    monkeypatch.setattr(trainer, "trainer", next_trainer)
    monkeypatch.setattr(trainer, "connect", lambda **_: None)
    monkeypatch.setattr(trainer, "newest_step", lambda _: steps.pop(0))
    config = SimpleNamespace(num_workers=(1, 2), cpus_per_worker=1.0)
    trainer.train(SimpleNamespace(config=config, root=Path("/nowhere")), None)  # type: ignore[arg-type]
    return len(ran)


def lost() -> None:
    raise ActorDiedError


def ends() -> None:
    pass


def test_a_lost_controller_is_replaced(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(monkeypatch, [lost, ends], [0, 20]) == 2
    assert "controller is lost, another goes on from step 20" in capsys.readouterr().out


def test_it_is_replaced_as_long_as_the_run_gets_further(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [0, 10, 10, 10, 20, 20, 20, 30]
    assert train(monkeypatch, [*[lost] * 7, ends], steps) == 8


def test_it_is_not_replaced_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ActorDiedError):
        train(monkeypatch, [lost] * TRIES, [10] * (TRIES + 1))


def test_an_error_of_ours_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong() -> None:
        raise ValueError("no such latents")

    with pytest.raises(ValueError, match="no such latents"):
        train(monkeypatch, [wrong, ends], [0, 0])
