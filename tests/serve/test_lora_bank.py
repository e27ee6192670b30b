"""The LoRA bank: swaps while others draw, one upload per adapter, refusals, and callers who go away."""

import asyncio
import threading
from pathlib import Path

import pytest
from toy_painter import ToyAdapters

from serve.bank import Bank
from serve.errors import RequestError


class Uploads:
    """Records uploads; holds them while the gate is shut."""

    def __init__(self) -> None:
        self.made: list[tuple[int, str]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, slot: int, folder: Path) -> None:
        self.gate.wait(5)
        if "unfit" in folder.name:
            raise ValueError("rank 999 is more than the bank's 16")
        self.made.append((slot, folder.name))


async def drawn_with(bank: Bank, name: str | None) -> int:
    async with bank.slot(name) as slot:
        return slot


def test_no_adapter_is_slot_zero_without_an_upload() -> None:
    uploads = Uploads()
    assert asyncio.run(drawn_with(Bank(3, ToyAdapters(), uploads), None)) == 0
    assert uploads.made == []


def test_two_callers_share_one_upload() -> None:
    uploads = Uploads()

    async def scene() -> list[int]:
        bank = Bank(3, ToyAdapters(), uploads)
        return await asyncio.gather(*(drawn_with(bank, "ink") for _ in range(5)))

    assert asyncio.run(scene()) == [1] * 5
    assert uploads.made == [(1, "ink@1")]


def test_the_event_loop_is_free_while_an_adapter_uploads() -> None:
    uploads = Uploads()

    async def scene() -> int:
        bank = Bank(3, ToyAdapters(), uploads)
        uploads.gate.clear()
        ink = asyncio.create_task(drawn_with(bank, "ink"))
        await asyncio.sleep(0.05)
        plain = await asyncio.wait_for(drawn_with(bank, None), 1)
        assert not ink.done()
        uploads.gate.set()
        assert await ink == 1
        return plain

    assert asyncio.run(scene()) == 0


def test_a_full_bank_makes_the_next_adapter_wait_for_a_release() -> None:
    uploads = Uploads()

    async def scene() -> None:
        bank = Bank(2, ToyAdapters(), uploads)
        async with bank.slot("ink"):
            chalk = asyncio.create_task(drawn_with(bank, "chalk"))
            await asyncio.sleep(0.05)
            assert not chalk.done()
        assert await asyncio.wait_for(chalk, 2) == 1

    asyncio.run(scene())
    assert uploads.made == [(1, "ink@1"), (1, "chalk@1")]


def test_a_promoted_version_takes_effect_without_a_restart() -> None:
    uploads, adapters = Uploads(), ToyAdapters()

    async def scene() -> None:
        bank = Bank(3, adapters, uploads)
        async with bank.slot("ink"):  # the old version stays pinned for who draws with it
            adapters.version = 2
            assert await drawn_with(bank, "ink") == 2

    asyncio.run(scene())
    assert uploads.made == [(1, "ink@1"), (2, "ink@2")]


def test_an_unknown_adapter_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        RequestError, match=r"'inc' is not offered \(did you mean 'ink'\?\); offered: ink, chalk"
    ) as info:
        asyncio.run(drawn_with(Bank(3, ToyAdapters(), Uploads()), "inc"))
    assert (info.value.param, info.value.status) == ("lora", 400)


def test_an_adapter_that_does_not_fit_is_refused_and_its_slot_is_free_again() -> None:
    uploads = Uploads()

    async def scene() -> None:
        bank = Bank(2, ToyAdapters(), uploads)
        with pytest.raises(RequestError, match="rank 999 is more than"):
            await drawn_with(bank, "unfit")
        assert await asyncio.wait_for(drawn_with(bank, "ink"), 2) == 1

    asyncio.run(scene())


def test_a_caller_who_goes_during_the_upload_leaves_no_pin() -> None:
    uploads = Uploads()

    async def scene() -> None:
        bank = Bank(2, ToyAdapters(), uploads)
        uploads.gate.clear()
        gone = asyncio.create_task(drawn_with(bank, "ink"))
        await asyncio.sleep(0.05)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        uploads.gate.set()
        assert await asyncio.wait_for(drawn_with(bank, "chalk"), 2) == 1  # ink's slot could be taken

    asyncio.run(scene())
    assert uploads.made == [(1, "ink@1"), (1, "chalk@1")]
