"""Parts that change over to better ones while they serve: no call fails, no adapter is lost."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssd1b.adapters.adapter import Adapter
from ssd1b.engines.bank import Layout
from ssd1b.engines.bundle import Bundle
from ssd1b.engines.checks import random_layers
from ssd1b.engines.engine import Engine
from ssd1b.engines.graph import example_rows
from ssd1b.engines.rising import Ascent, RisingDecoder, RisingEngine
from ssd1b.engines.tensorrt import bundled
from ssd1b.engines.text import AdaptedText, TorchText
from ssd1b.models.files import load_unet

ROWS = tuple(torch.zeros(1) for _ in range(7))


class Fake:
    """Answers with its number; remembers its adapters."""

    device = torch.device("cpu")
    slots, rank = 4, 8
    layout = Layout(())

    def __init__(self, number: int) -> None:
        self.number, self.name = number, f"fake {number}"
        self.adapters: dict[int, Adapter] = {}

    def __call__(self, *rows: Tensor) -> Tensor:
        assert len(rows) == len(ROWS)
        return torch.tensor(self.number)

    def load_adapter(self, slot: int, adapter: Adapter | None) -> None:
        if adapter is None:
            self.adapters.pop(slot, None)
        else:
            self.adapters[slot] = adapter


def rising(first: Fake, rise: Callable[[], Fake | None]) -> tuple[RisingEngine, Ascent[Fake]]:
    engine, ascent = RisingEngine(first), Ascent(None, rise, every_s=0.01)
    ascent.then(engine.change)
    return engine, ascent


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_it_serves_with_the_first_until_the_better_one_is_there() -> None:
    first, better, asked, go = Fake(1), Fake(2), threading.Event(), threading.Event()
    answers = iter([None, None])

    def rise() -> Fake | None:
        asked.set()
        if (answer := next(answers, better)) is better:
            go.wait(10)
        return answer

    engine, ascent = rising(first, rise)
    assert asked.wait(10)
    a, b, c = (Adapter(name, {}) for name in "abc")
    for slot, adapter in ((1, a), (2, b), (3, c)):
        engine.load_adapter(slot, adapter)
    engine.load_adapter(2, None)
    assert engine(*ROWS) == 1
    assert engine.name == "fake 1"
    go.set()
    until(lambda: engine.name == "fake 2")
    assert engine(*ROWS) == 2
    assert better.adapters == {1: a, 3: c}
    engine.load_adapter(2, b)
    assert better.adapters[2] is b
    assert 2 not in first.adapters
    ascent.close()


def test_adapters_that_come_while_it_changes_are_in_the_better_one() -> None:
    """Against a better engine that is slow to take adapters, from several threads at once."""
    better = Fake(2)
    plain = better.load_adapter

    def slowly(slot: int, adapter: Adapter | None) -> None:
        time.sleep(0.02)
        plain(slot, adapter)

    better.load_adapter = slowly  # type: ignore[method-assign]
    go = threading.Event()
    engine, ascent = rising(Fake(1), lambda: better if go.wait(10) else None)
    engine.load_adapter(1, Adapter("early", {}))
    threads = [
        threading.Thread(target=engine.load_adapter, args=(slot, Adapter(f"late {slot}", {}))) for slot in (2, 3)
    ]
    go.set()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: engine.name == "fake 2")
    assert sorted(better.adapters) == [1, 2, 3]
    ascent.close()


def test_where_nothing_better_can_be_had_the_first_goes_on_and_the_log_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def rise() -> None:
        raise ValueError("tensorrt_rtx cannot build for sm90")

    engine, ascent = rising(Fake(1), rise)
    ascent.thread.join(10)
    assert not ascent.thread.is_alive()
    assert engine(*ROWS) == 1
    assert "what serves goes on serving: tensorrt_rtx cannot build for sm90" in caplog.text


def test_a_part_that_cannot_change_over_does_not_hold_up_the_others(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_: int) -> None:
        raise ValueError("the plan does not load")

    go = threading.Event()
    ascent = Ascent(None, lambda: 7 if go.wait(10) else None, every_s=0.01)
    decoder = RisingDecoder(lambda latents: latents)
    ascent.then(refuse)
    ascent.then(lambda number: decoder.change(lambda latents: latents + number))
    assert decoder(torch.tensor(1)) == 1
    go.set()
    ascent.thread.join(10)
    assert decoder(torch.tensor(1)) == 8
    assert "the plan does not load" in caplog.text


def test_what_is_there_already_is_taken_at_once() -> None:
    ascent, told = Ascent(7, lambda: pytest.fail("nothing to ask for")), []
    ascent.then(told.append)
    assert told == [7]
    ascent.close()


class OtherPlans:
    """Stands in for the plans of a GPU: the parts to change over to are the same bundle's on ONNX Runtime."""

    def __init__(self, folder: Path, *_: object) -> None:
        self.other = Bundle.load(folder, "onnxruntime")
        self.go = threading.Event()

    def ascent(self) -> Ascent[str]:
        return Ascent(None, lambda: "plans" if self.go.wait(10) else None, every_s=0.01)

    def unet(self, _: str, **room: int) -> Engine:
        return self.other.engine(**room)

    def decoder(self, _: str) -> Callable[[Tensor], Tensor]:
        return self.other.decode

    def text(self, _: str, like: AdaptedText) -> AdaptedText:
        assert (like.slots, like.rank) == (self.other.text.slots, self.other.text.rank)
        return self.other.text


def test_a_bundle_takes_all_three_parts_up_with_their_adapters(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled, "Plans", OtherPlans)
    bundle = Bundle(tiny_bundle.folder, tiny_bundle.manifest, "torch", tensorrt=True)
    engine, text, decode = bundle.engine(), bundle.text, bundle.decode
    layers = random_layers(engine.layout, 4, 0.5)
    adapter = Adapter("both", layers, text=tuple(random_layers(layout, 4, 0.5) for layout in text.layouts))
    for part in (engine, text):
        part.load_adapter(1, adapter)
    rows = (*example_rows(load_unet(str(bundle.folder)), 77, 2)[:5], torch.tensor([0, 1]), torch.ones(2))
    ids = [torch.randint(0, 400, (2, text.window), generator=torch.Generator().manual_seed(1)) for _ in text.widths]
    latents_BCHW = rows[0]

    def all_told() -> tuple[Tensor, ...]:
        return engine(*rows), *text(ids, rows[5], rows[6]), decode(latents_BCHW).float()

    first = all_told()
    bundle.rise.plans.go.set()
    bundle.rise.ascent.thread.join(60)
    assert engine.name.startswith("onnxruntime")
    assert type(text.now) is not TorchText
    assert type(decode.now).__name__ == "OnnxDecoder"
    for was, now, tolerance in zip(first, all_told(), (1e-3, 1e-3, 1e-3, 1.01), strict=True):
        torch.testing.assert_close(now, was, atol=tolerance, rtol=1e-3)
