"""Who sits in which slot of the LoRA bank."""

import random

import pytest

from serve.adapters.residency import Load, Residency, Resident, Wait


def seated(residency: Residency, key: str) -> int:
    """Acquire, upload and let go; return the slot."""
    decision = residency.acquire(key)
    assert isinstance(decision, Load | Resident)
    if isinstance(decision, Load):
        residency.loaded(key)
    residency.release(key)
    return decision.slot


def test_slot_zero_is_never_given() -> None:
    residency = Residency(4)
    assert [seated(residency, key) for key in "abc"] == [1, 2, 3]


def test_a_resident_adapter_is_not_loaded_again() -> None:
    residency = Residency(3)
    assert residency.acquire("a") == Load(1, None)
    residency.loaded("a")
    assert residency.acquire("a") == Resident(1)


def test_nobody_draws_with_a_slot_that_is_still_uploading() -> None:
    residency = Residency(3)
    residency.acquire("a")
    assert isinstance(residency.acquire("a"), Wait)
    residency.loaded("a")
    assert residency.acquire("a") == Resident(1)


def test_the_least_recently_used_makes_room() -> None:
    residency = Residency(3)
    for key in ("a", "b", "a"):
        seated(residency, key)
    assert residency.acquire("c") == Load(2, "b")


def test_a_pinned_adapter_stays() -> None:
    residency = Residency(3)
    residency.acquire("a")
    residency.loaded("a")
    seated(residency, "b")
    assert residency.acquire("c") == Load(2, "b")  # a is older, but in use
    residency.loaded("c")
    assert residency.acquire("d") == Wait("every slot of the bank is in use")
    residency.release("a")
    assert residency.acquire("d") == Load(1, "a")


def test_a_failed_upload_frees_the_slot() -> None:
    residency = Residency(2)
    assert residency.acquire("a") == Load(1, None)
    residency.failed("a")
    assert residency.resident == ()
    assert residency.acquire("b") == Load(1, None)


def test_a_bank_of_the_plain_model_only_has_no_room() -> None:
    assert isinstance(Residency(1).acquire("a"), Wait)


def test_releasing_too_often_is_a_bug() -> None:
    residency = Residency(2)
    seated(residency, "a")
    with pytest.raises(AssertionError, match="more often"):
        residency.release("a")


@pytest.mark.parametrize("seed", range(20))
def test_no_walk_gives_two_adapters_one_slot_or_evicts_a_pinned_one(seed: int) -> None:
    chance = random.Random(seed)
    slots = chance.randint(2, 4)
    residency, pinned, held = Residency(slots), list[str](), dict[str, int]()
    for _ in range(300):
        key = chance.choice("abcdef")
        if pinned and chance.random() < 0.5:
            residency.release(pinned.pop(chance.randrange(len(pinned))))
            continue
        decision = residency.acquire(key)
        if isinstance(decision, Wait):
            assert len(set(pinned)) == slots - 1
            assert key not in pinned
            continue
        if isinstance(decision, Load):
            assert decision.evicted not in pinned
            if decision.evicted:
                assert held.pop(decision.evicted) == decision.slot
            residency.loaded(key)
        else:
            assert held[key] == decision.slot
        assert 1 <= decision.slot < slots
        held[key] = decision.slot
        assert len(set(held.values())) == len(held)
        pinned.append(key)
