"""The LoRA bank: swaps while others draw, one upload per adapter, refusals, and callers who go away."""

import asyncio
import threading
from collections.abc import Sequence
from contextlib import AsyncExitStack

import numpy as np
import pytest
from toy_painter import ToyAdapter, ToyAdapters

from serve.adapters.bank import LOOK_S, PLAIN, Bank, Place
from serve.adapters.catalogue import Catalogue
from serve.adapters.shelf import Shelf
from serve.errors import RequestError
from serve.meters import Meters
from serve.request import LoraChoice


class Uploads:
    """Records what is read and uploaded; holds uploads while the gate is shut."""

    def __init__(self) -> None:
        self.made: list[tuple[int, list[tuple[str, float]]]] = []
        self.reads: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def read(self, key: str) -> ToyAdapter:
        self.reads.append(key)
        if "torn" in key:
            raise ValueError(f"{key} is not a readable safetensors file")
        return ToyAdapter(key)

    def __call__(self, slot: int, parts: Sequence[tuple[ToyAdapter, float]]) -> None:
        self.gate.wait(5)
        if any("unfit" in adapter.name for adapter, _ in parts):
            raise ValueError("rank 999 is more than the bank's 16")
        self.made.append((slot, [(adapter.name, weight) for adapter, weight in parts]))

    @property
    def singles(self) -> list[tuple[int, str]]:
        return [(slot, parts[0][0]) for slot, parts in self.made if len(parts) == 1]


class Thousand(ToyAdapters):
    def names(self) -> tuple[str, ...]:
        return tuple(f"lora-{n}" for n in range(1000))


def bank_of(slots: int, uploads: Uploads, adapters: ToyAdapters | None = None, rows: int = 100) -> Bank:
    catalogue = Catalogue(adapters or ToyAdapters())
    return Bank(slots, rows, catalogue, Shelf(uploads.read), uploads, Meters())


def chosen(*names: str, scale: float = 1.0) -> tuple[LoraChoice, ...]:
    return tuple(LoraChoice(name=name, scale=scale) for name in names)


async def drawn_with(bank: Bank, *names: str, scale: float = 1.0) -> Place:
    async with bank.place(chosen(*names, scale=scale), 1) as place:
        return place


def test_no_adapter_is_slot_zero_without_an_upload() -> None:
    uploads = Uploads()
    assert asyncio.run(drawn_with(bank_of(3, uploads))) == PLAIN
    assert asyncio.run(drawn_with(bank_of(3, uploads), "ink", scale=0)) == PLAIN  # at weight 0 it is the plain model
    assert uploads.made == []


def test_two_callers_share_one_upload_whatever_their_weights() -> None:
    uploads = Uploads()

    async def scene() -> list[Place]:
        bank = bank_of(3, uploads)
        return await asyncio.gather(*(drawn_with(bank, "ink", scale=0.5 + n) for n in range(5)))

    assert asyncio.run(scene()) == [Place(1, 0.5 + n) for n in range(5)]
    assert uploads.singles == [(1, "ink@1")]


def test_several_adapters_are_one_slot_with_their_weights_in_it() -> None:
    uploads = Uploads()

    async def scene() -> None:
        bank = bank_of(4, uploads)
        both = (LoraChoice(name="ink", scale=0.5), LoraChoice(name="chalk"))
        async with bank.place(both, 1) as place:
            assert place == Place(1, 1.0)
        async with bank.place(both[::-1], 1) as place:  # the same in any order
            assert place == Place(1, 1.0)
        async with bank.place((both[0], LoraChoice(name="chalk", scale=2)), 1) as place:
            assert place == Place(2, 1.0)  # other weights are another slot
        async with bank.place((both[0], both[0]), 1) as place:  # named twice: the weights add up
            assert place == Place(3, 1.0)
        assert bank.resident == ("chalk*1.0+ink*0.5", "chalk*2.0+ink*0.5", "ink")

    asyncio.run(scene())
    assert uploads.made[0] == (1, [("chalk@1", 1.0), ("ink@1", 0.5)])
    assert sorted(uploads.reads) == ["chalk@1", "ink@1"]


def test_the_event_loop_is_free_while_an_adapter_uploads() -> None:
    uploads = Uploads()

    async def scene() -> Place:
        bank = bank_of(3, uploads)
        uploads.gate.clear()
        ink = asyncio.create_task(drawn_with(bank, "ink"))
        await asyncio.sleep(0.05)
        plain = await asyncio.wait_for(drawn_with(bank), 1)
        assert not ink.done()
        uploads.gate.set()
        assert (await ink).slot == 1
        return plain

    assert asyncio.run(scene()) == PLAIN


def test_a_full_bank_makes_the_next_adapter_wait_for_a_release_but_not_to_be_read() -> None:
    uploads = Uploads()

    async def scene() -> None:
        bank = bank_of(2, uploads)
        async with bank.place(chosen("ink"), 1):
            chalk = asyncio.create_task(drawn_with(bank, "chalk"))
            await asyncio.sleep(0.05)
            assert not chalk.done()
            assert "chalk@1" in uploads.reads
        assert (await asyncio.wait_for(chalk, 2)).slot == 1

    asyncio.run(scene())
    assert uploads.singles == [(1, "ink@1"), (1, "chalk@1")]


def test_a_promoted_version_takes_effect_and_a_removed_adapter_is_refused_while_the_old_ones_finish() -> None:
    uploads, adapters = Uploads(), ToyAdapters()
    clock = [0.0]

    async def scene() -> None:
        bank = Bank(4, 100, Catalogue(adapters, lambda: clock[0]), Shelf(uploads.read), uploads, Meters())
        async with bank.place(chosen("ink"), 1) as old:  # the old version stays pinned for who draws with it
            adapters.version, clock[0] = 2, 100.0
            assert (await drawn_with(bank, "ink")).slot == 2
            adapters.names = lambda: ("chalk",)  # type: ignore[method-assign]
            clock[0] = 200.0
            with pytest.raises(RequestError, match="'ink' is not offered"):
                await drawn_with(bank, "ink")
            assert old.slot == 1

    asyncio.run(scene())
    assert uploads.singles == [(1, "ink@1"), (2, "ink@2")]


def test_an_unknown_adapter_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        RequestError, match=r"'inc' is not offered \(did you mean 'ink'\?\); offered: chalk, clay, ink"
    ) as info:
        asyncio.run(drawn_with(bank_of(3, Uploads()), "inc"))
    assert (info.value.param, info.value.status) == ("lora", 400)


def test_an_engine_without_room_for_adapters_says_so() -> None:
    with pytest.raises(RequestError, match="without room for LoRA adapters"):
        asyncio.run(drawn_with(bank_of(1, Uploads()), "ink"))


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("unfit",), "The LoRA 'unfit' does not fit this model: rank 999"),
        (("unfit", "ink"), r"The LoRAs ink\*1.0\+unfit\*1.0 together do not fit this model: rank 999"),
        (("torn",), "is not a readable safetensors file"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_and_its_slot_is_free_again(names: tuple[str, ...], says: str) -> None:
    uploads, adapters = Uploads(), ToyAdapters()
    adapters.names = lambda: ("ink", "unfit", "torn")  # type: ignore[method-assign]

    async def scene() -> None:
        bank = bank_of(2, uploads, adapters)
        outcomes = await asyncio.gather(*(drawn_with(bank, *names) for _ in range(3)), return_exceptions=True)
        for outcome in outcomes:  # each is told, also who waited for another's upload
            assert isinstance(outcome, RequestError)
            with pytest.raises(RequestError, match=says):
                raise outcome
        assert (await asyncio.wait_for(drawn_with(bank, "ink"), 2)).slot == 1

    asyncio.run(scene())


def test_a_caller_who_goes_during_the_upload_leaves_no_pin() -> None:
    uploads = Uploads()

    async def scene() -> None:
        bank = bank_of(2, uploads)
        uploads.gate.clear()
        gone = asyncio.create_task(drawn_with(bank, "ink"))
        await asyncio.sleep(0.05)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        uploads.gate.set()
        assert (await asyncio.wait_for(drawn_with(bank, "chalk"), 2)).slot == 1  # ink's slot could be taken

    asyncio.run(scene())
    assert uploads.singles == [(1, "ink@1"), (1, "chalk@1")]


def test_rows_wait_for_room_in_order() -> None:
    async def scene() -> list[int]:
        bank, order = bank_of(2, Uploads(), rows=4), list[int]()

        async def draw(number: int, rows: int) -> None:
            async with bank.place((), rows):
                order.append(number)
                await asyncio.sleep(0.01)

        async with AsyncExitStack() as stack:
            await stack.enter_async_context(bank.place((), 3))
            waiting = [asyncio.create_task(draw(n, rows)) for n, rows in enumerate((3, 1, 4, 1))]
            await asyncio.sleep(0.05)
            assert (order, bank.waiting) == ([], 4)
        await asyncio.gather(*waiting)
        return order

    assert asyncio.run(scene()) == [0, 1, 2, 3]


def test_an_adapter_that_is_replaced_before_it_is_read_is_drawn_with_as_it_is_now() -> None:
    uploads, adapters = Uploads(), ToyAdapters()
    read = uploads.read

    def replaced(key: str) -> ToyAdapter:
        if key == "ink@1":
            adapters.version = 2
            raise ValueError("ink has just been changed")
        return read(key)

    uploads.read = replaced  # type: ignore[method-assign]

    async def scene() -> None:
        bank = bank_of(3, uploads, adapters)

        async def later(seconds: float) -> Place:  # who comes later looks when another has found it already
            await asyncio.sleep(seconds)
            return await drawn_with(bank, "ink")

        assert {place.slot for place in await asyncio.gather(*(later(n * LOOK_S / 5) for n in range(5)))} == {1}
        assert bank.waiting == 0

    asyncio.run(scene())
    assert uploads.singles == [(1, "ink@2")]


def test_an_adapter_that_is_gone_before_it_is_read_is_refused_as_one_that_there_is_not() -> None:
    uploads, adapters = Uploads(), ToyAdapters()

    def gone(key: str) -> ToyAdapter:
        adapters.names = lambda: ("chalk",)  # type: ignore[method-assign]
        raise ValueError(f"{key} has just been removed")

    uploads.read = gone  # type: ignore[method-assign]

    async def scene() -> None:
        with pytest.raises(RequestError, match="'ink' is not offered") as info:
            await drawn_with(bank_of(3, uploads, adapters), "ink")
        assert (info.value.param, info.value.code) == ("lora", "invalid_value")

    asyncio.run(scene())


def test_a_thousand_adapters_by_zipf_are_all_answered_and_read_once() -> None:
    uploads = Uploads()
    names = [f"lora-{n}" for n in np.minimum(np.random.default_rng(1).zipf(1.2, 800), 999)]

    async def scene() -> None:
        bank = bank_of(9, uploads, Thousand(), rows=16)

        async def draw(name: str) -> None:
            async with bank.place(chosen(name), 1) as place:
                assert 1 <= place.slot < 9
                held = [parts[0][0] for slot, parts in uploads.made if slot == place.slot]
                assert held[-1] == f"{name}@1"
                await asyncio.sleep(0)

        await asyncio.wait_for(asyncio.gather(*map(draw, names)), 30)
        assert bank.waiting == 0

    asyncio.run(scene())
    assert len(uploads.reads) == len(set(names))


def test_the_shelf_keeps_what_was_used_last_within_its_bytes() -> None:
    reads: list[str] = []

    def read(key: str) -> ToyAdapter:
        reads.append(key)
        return ToyAdapter(key, parameters=100)

    async def scene() -> None:
        shelf = Shelf(read, most_bytes=800)
        for key in ("a", "b", "a", "c", "a", "b"):
            assert (await shelf.get(key)).parameters == 100

    asyncio.run(scene())
    assert reads == ["a", "b", "c", "b"]
