"""Who may begin: room for rows, slots of the bank, and that nobody is passed over for ever."""

import random

import numpy as np
import pytest

from serve.adapters.admission import Admission
from serve.adapters.residency import Load, Resident


def begun(admission: Admission[str]) -> list[str]:
    """Let begin who may, their adapters uploaded at once."""
    tickets = []
    while admits := admission.decide():
        for admit in admits:
            tickets.append(admit.ticket)
            if isinstance(admit.seat, Load):
                assert admit.key is not None
                admission.loaded(admit.key)
    return tickets


def test_in_the_order_of_arrival_as_far_as_there_is_room() -> None:
    admission: Admission[str] = Admission(rows=4, slots=3)
    for ticket, rows in (("a", 2), ("b", 3), ("c", 1)):
        admission.join(ticket, rows, None)
    assert begun(admission) == ["a"]  # c would fit, but b would wait for ever behind its like
    assert admission.waiting == 2
    admission.leave("a")
    assert begun(admission) == ["b", "c"]


def test_more_rows_than_there_ever_is_room_for_begin_alone() -> None:
    admission: Admission[str] = Admission(rows=4, slots=3)
    admission.join("small", 1, None)
    admission.join("large", 10, None)
    assert begun(admission) == ["small"]
    admission.leave("small")
    assert begun(admission) == ["large"]


def test_batch_work_stands_behind_interactive_work_that_comes_soon() -> None:
    admission: Admission[str] = Admission(rows=1, slots=3, batch_delay=2)
    admission.join("slow", 1, None, "batch")
    for ticket in "abc":
        admission.join(ticket, 1, None)
    order = []
    while now := begun(admission):
        order += now
        admission.leave(now[0])
    assert order == ["a", "slow", "b", "c"]


def test_equal_adapters_share_a_slot_and_one_upload() -> None:
    admission: Admission[str] = Admission(rows=8, slots=3)
    admission.join("a", 1, "ink")
    admission.join("b", 1, "ink")
    (first,) = admission.decide()
    assert (first.ticket, first.seat) == ("a", Load(1, None))
    assert admission.decide() == []  # b waits for the upload
    admission.loaded("ink")
    (second,) = admission.decide()
    assert (second.ticket, second.seat) == ("b", Resident(1))
    assert admission.resident == ("ink",)


def test_a_failed_upload_frees_the_slot_and_the_next_tries_for_itself() -> None:
    admission: Admission[str] = Admission(rows=8, slots=2)
    admission.join("a", 1, "ink")
    admission.join("b", 1, "ink")
    admission.decide()
    admission.failed("ink")
    admission.leave("a")
    (again,) = admission.decide()
    assert (again.ticket, again.seat) == ("b", Load(1, None))
    admission.loaded("ink")
    admission.leave("b")
    assert admission.resident == ("ink",)


def test_who_goes_during_the_upload_leaves_no_pin_and_the_slot_is_not_given_away_before_it_ends() -> None:
    admission: Admission[str] = Admission(rows=8, slots=2)
    admission.join("a", 1, "ink")
    admission.decide()
    admission.leave("a")
    admission.join("b", 1, "chalk")
    assert admission.decide() == []
    admission.loaded("ink")
    (admit,) = admission.decide()
    assert admit.seat == Load(1, "ink")


def test_a_rare_adapter_is_passed_by_so_many_and_no_more() -> None:
    """The only slot is held by a popular adapter, whose requests overlap without end."""
    admission: Admission[str] = Admission(rows=100, slots=2, patience=5)
    admission.join("popular 0", 1, "popular")
    assert begun(admission) == ["popular 0"]
    admission.join("rare", 1, "rare")
    for n in range(1, 6):
        admission.join(f"popular {n}", 1, "popular")
        assert begun(admission) == [f"popular {n}"]
        admission.leave(f"popular {n - 1}")
        assert begun(admission) == []
    admission.join("popular 6", 1, "popular")
    admission.join("plain", 1, None)
    assert begun(admission) == []
    admission.leave("popular 5")
    assert begun(admission) == ["rare", "plain"]


@pytest.mark.parametrize("seed", range(12))
def test_random_traffic_of_a_thousand_adapters(seed: int) -> None:
    """Zipf: no slot is given away while pinned, every request begins, and the bound on being passed holds."""
    chance, generator = random.Random(seed), np.random.default_rng(seed)
    slots, rows, patience = chance.choice((2, 4, 9)), chance.choice((2, 8, 32)), chance.choice((0, 3, 20))
    admission: Admission[int] = Admission(rows, slots, patience)
    names = [f"lora-{n}" for n in np.minimum(generator.zipf(1.3, 600), 1000)]
    held: dict[int, str] = {}  # slot -> key
    drawing: dict[int, tuple[int, str | None]] = {}
    uploading: list[str] = []
    asked: dict[int, tuple[int, str | None]] = {}
    passed: dict[int, int] = {}
    blocked: set[int] = set()
    arrived = 0
    for _ in range(20_000):
        move = chance.random()
        if move < 0.4 and arrived < len(names):
            key = None if chance.random() < 0.2 else names[arrived]
            asked[arrived] = (chance.randint(1, 4), key)
            passed[arrived] = 0
            admission.join(arrived, *asked[arrived])
            arrived += 1
        elif move < 0.45 and asked:
            gone = chance.choice(list(asked))
            del asked[gone], passed[gone]
            admission.leave(gone)
        elif move < 0.7 and uploading:
            key = uploading.pop(chance.randrange(len(uploading)))
            if chance.random() < 0.1:
                held = {slot: other for slot, other in held.items() if other != key}
                admission.failed(key)
                for ticket in [t for t, (_, other) in drawing.items() if other == key]:
                    del drawing[ticket]
                    admission.leave(ticket)
            else:
                admission.loaded(key)
        elif drawing:
            ticket = chance.choice(list(drawing))
            if drawing[ticket][1] not in uploading:
                del drawing[ticket]
                admission.leave(ticket)
        for admit in admission.decide():
            count, key = asked.pop(admit.ticket)
            del passed[admit.ticket]
            blocked = {other for other in passed if other < admit.ticket and asked[other][1] is not None}
            for other in blocked:
                passed[other] += 1
            if isinstance(admit.seat, Load):
                pinned = {other for _, other in drawing.values()} - {None}
                assert 1 <= admit.seat.slot < slots
                assert held.get(admit.seat.slot) == admit.seat.evicted
                assert admit.seat.evicted not in pinned
                assert admit.seat.evicted not in uploading
                assert key is not None
                held[admit.seat.slot] = key
                uploading.append(key)
            elif isinstance(admit.seat, Resident):
                assert key is not None
                assert held[admit.seat.slot] == key
                assert key not in uploading
            drawing[admit.ticket] = (count, key)
            total = sum(count for count, _ in drawing.values())
            assert total <= rows or len(drawing) == 1
        assert all(count <= patience for count in passed.values())
        if arrived == len(names) and not asked and not drawing:
            break
    assert not asked, "somebody never began"
    assert admission.waiting == 0
