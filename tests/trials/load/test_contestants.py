"""The others draw the same pictures, keep no more adapters than they say, and leave nothing behind when they end."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from ssd1b.models.files import NANO, load_unet
from ssd1b.trials.load import plain_diffusers
from ssd1b.trials.load.contestants import BATCHES, NULL, Contestant, alive, contestants, descendants, running
from ssd1b.trials.load.driver import picture, psnr
from ssd1b.trials.load.our_engine import OurEngine
from ssd1b.trials.load.plain_diffusers import Pipeline
from ssd1b.trials.load.stand import Stand, prompts, write_adapter
from ssd1b.trials.load.trace import Mix, at_once
from ssd1b.trials.load.wire import Wanted

NAMES = ("chalk", "clay", "ink")
ASK = at_once(Mix(prompts=("a red apple, flat vector style",), steps=((2, 1.0),)), 1, seed=0)[0]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, unet = tmp_path_factory.mktemp("adapters"), load_unet("nano")
    for seed, name in enumerate(NAMES):
        write_adapter(unet, folder / name, seed)
    return folder


def wanted(lora: str | None = None, **fields: object) -> Wanted:
    return Wanted.model_validate({**ASK.body(), "lora": lora, **fields})


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    decibels = psnr(one, other)
    return decibels is None or decibels > 40


def test_diffusers_and_our_engine_draw_the_same(adapters: Path) -> None:
    engine, pipeline = OurEngine(NANO, adapters), Pipeline(NANO, adapters)
    drawn = {}
    for lora in ("ink", None, "chalk", "ink"):
        ours = engine.draw([wanted(lora)], engine.slot_of(lora))[0]
        drawn[lora] = pipeline.draw(wanted(lora))
        assert ours.shape == (128, 128, 3)
        assert alike(ours, drawn[lora]), lora
    assert not alike(drawn["ink"], drawn["chalk"])
    assert not alike(drawn["ink"], drawn[None])


def test_a_batch_of_unlike_lengths_draws_what_each_would_alone(adapters: Path) -> None:
    engine = OurEngine(NANO, adapters)
    slot = engine.slot_of("clay")
    asked = [wanted("clay", num_inference_steps=steps, seed=steps) for steps in (1, 3, 2)]
    for one, together in zip(asked, engine.draw(asked, slot), strict=True):
        assert alike(engine.draw([one], slot)[0], together)


def test_slots_and_loaded_adapters_are_bounded(adapters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = OurEngine(NANO, adapters)
    monkeypatch.setattr(engine.engine, "slots", 3)
    assert [engine.slot_of(name) for name in ("ink", "chalk", None, "ink", "clay")] == [1, 2, 0, 1, 2]
    assert set(engine.slots) == {"ink", "clay"}, "the least recently used one made room"
    monkeypatch.setattr(plain_diffusers, "KEPT", 2)
    pipeline = Pipeline(NANO, adapters)
    for name in ("ink", "chalk", "ink", "clay"):
        pipeline.wear(name)
    assert set(pipeline.kept) == {"ink", "clay"}
    assert set(pipeline.pipe.get_list_adapters()["unet"]) == {"ink", "clay"}


@pytest.fixture
def environment() -> dict[str, str]:
    return {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}


def test_a_contestant_is_up_within_and_gone_after(tmp_path: Path, environment: dict[str, str]) -> None:
    with running(NULL, tmp_path, environment, ASK) as server:
        assert picture(server.url, ASK).shape == (128, 128, 3)
        assert server.processes()[0] in descendants(os.getpid())
    assert not any(map(alive, server.processes()))
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url)


def test_one_that_does_not_come_up_says_why(tmp_path: Path, environment: dict[str, str]) -> None:
    broken = Contestant(name="broken", arguments=("-c", "raise SystemExit('no model here')"))
    with pytest.raises(RuntimeError, match=r"(?s)broken draws no picture: it ended with status 1.*no model here"), \
         running(broken, tmp_path, environment, ASK):  # fmt: skip
        pass


def test_prompts_are_captions_of_the_corpus() -> None:
    assert len(set(prompts(20, seed=0))) == 20
    assert list(prompts(20, seed=0)) == list(prompts(20, seed=0)) != list(prompts(20, seed=1))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(300)
def test_serves_own_batching_keeps_adapters_apart(adapters: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    stand = Stand(home=tmp_path, bundle=NANO, adapters=adapters, names=NAMES, sizes=("128x128",))
    (batches,) = (one for one in contestants(stand, rows=4, wait_s=0.1) if one.name == BATCHES)
    engine = OurEngine(NANO, adapters)
    asks = [replace(ASK, adapter=name, seed=seed) for seed in (1, 2) for name in (*NAMES, None)]
    with running(batches, tmp_path, environment, ASK) as server, ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda ask: picture(server.url, ask), asks))
    for ask, theirs in zip(asks, drawn, strict=True):
        one = Wanted.model_validate(ask.body())
        assert alike(theirs, engine.draw([one], engine.slot_of(one.lora))[0]), ask
