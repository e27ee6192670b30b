"""What the soak test plans and how it judges: every lattice of cases without a server."""

import time
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.webhooks.delivery import _generate_hmac_signature

from ssd1b.recipes.serving import ServeSoak, serve_soak
from ssd1b.trials.load.contestants import Server
from ssd1b.trials.load.harm import Endpoint
from ssd1b.trials.load.soak_check import EQUAL_DB, as_segmind, decibels, stratified
from ssd1b.trials.load.soak_hands import SECRET, Hands, deaths
from ssd1b.trials.load.soak_plan import CHANGED, EDGE_S, Move, kills, moves, swaps
from ssd1b.trials.load.soak_tally import Moved, Told, bank_line, by_dialect, move_line, verdict
from ssd1b.trials.load.soak_watch import COUNTERS
from ssd1b.trials.load.soak_wishes import EDIT, LEAST_SEGMIND, SEGMIND, Wish, wishes
from ssd1b.trials.load.trace import Mix, at_once
from ssd1b.trials.load.wardrobe import Wardrobe

MIX = Mix(prompts=("a red apple",), adapters=("ink", "chalk"), steps=((4, 0.5), (8, 0.5)))
PIXELS = np.zeros((8, 8, 3), np.uint8)
OLD, NEW = Path("old"), Path("new")


def told(began: float, ended: float, adapter: str | None = None, **fields: object) -> Told:
    ask = replace(at_once(MIX, 1, 1)[0], adapter=adapter)
    return Told(wish=Wish(dialect="openai", ask=ask, sampler="euler"), began=began, ended=ended, **fields)  # type: ignore[arg-type]


# ---- what is planned


@given(st.integers(2, 5), st.integers(3, 20))
def test_the_champion_moves_as_often_as_was_asked_and_always_elsewhere(versions: int, count: int) -> None:
    names = [str(number + 1) for number in range(versions)]
    planned = moves(names, replace(serve_soak(), moves=count))
    route = ["1", *(move.version for move in planned)]
    assert len(planned) == count
    assert all(one != other for one, other in pairwise(route))
    assert route[-1] == route[-3], "a rollback leads to the version before"
    assert [move.how for move in planned].count("promote") == 1
    assert [move.how for move in planned].count("rollback") == 1
    assert all(one.by != other.by for one, other in pairwise(planned))
    assert all(one.at_s < other.at_s for one, other in pairwise(planned))


def test_one_version_has_nowhere_to_move_to() -> None:
    with pytest.raises(ValueError, match="name more teachers"):
        moves(["1"], serve_soak())


@given(st.integers(0, 20), st.integers(0, 1000))
def test_kills_come_at_random_moments_of_the_day(count: int, seed: int) -> None:
    planned = kills(count, 100.0, np.random.default_rng(seed))
    assert len(planned) == count
    assert planned == sorted(planned)
    assert all(EDGE_S <= at_s <= 100 - EDGE_S for at_s in planned)
    assert [at_s for at_s, _ in deaths(planned, [50.0])] == sorted([*planned, 50.0])


def test_popular_adapters_change_each_once() -> None:
    names = [f"style-{number}" for number in range(1000)]
    planned = swaps(names, serve_soak(), np.random.default_rng(0))
    assert len({swap.adapter for swap in planned}) == len(planned) == serve_soak().changes
    there = [swap.adapter for swap in planned if swap.change != "add"]
    assert set(there) <= set(names[1:CHANGED])
    assert not {swap.adapter for swap in planned if swap.change == "add"} & set(names)


def test_wishes_are_what_their_dialect_can_say() -> None:
    for dialect in set(ServeSoak().callers):
        for wish in islice(wishes(dialect, MIX, 3, lambda: ("new",)), 200):
            assert wish.dialect == dialect
            assert (wish.start is not None) == (dialect == EDIT)
            assert dialect != SEGMIND or (wish.ask.adapter is None and wish.ask.steps >= LEAST_SEGMIND)
    worn = {wish.ask.adapter for wish in islice(wishes("openai", MIX, 3, lambda: ("new",)), 200)}
    assert worn == {None, "ink", "chalk", "new"}
    first, again = (list(islice(wishes("openai", MIX, 3, tuple), 5)) for _ in range(2))
    assert first == again


# ---- how it judges


def changed() -> Wardrobe:
    """ "ink" is replaced at 100, "chalk" goes at 100, "clay" comes at 100; the endpoint may be 10 s behind."""
    wardrobe = Wardrobe(10.0)
    wardrobe.hang("ink", OLD, 0.0)
    wardrobe.hang("ink", NEW, 100.0)
    wardrobe.hang("chalk", OLD, 0.0)
    wardrobe.take("chalk", 100.0)
    wardrobe.hang("clay", NEW, 100.0)
    return wardrobe


@pytest.mark.parametrize(
    ("name", "began", "ended", "files", "refusable"),
    [
        ("ink", 90, 95, [OLD], False),
        ("ink", 95, 105, [OLD, NEW], False),
        ("ink", 109, 112, [OLD, NEW], False),
        ("ink", 111, 112, [NEW], False),
        ("chalk", 90, 95, [OLD], False),
        ("chalk", 95, 105, [OLD], True),
        ("chalk", 109, 112, [OLD], True),
        ("chalk", 111, 112, [], True),
        ("clay", 90, 95, [], True),
        ("clay", 105, 106, [NEW], True),
        ("clay", 111, 112, [NEW], False),
        ("nobody's", 1, 2, [], True),
    ],
)
def test_what_may_be_drawn_with_and_refused_when(
    name: str, began: float, ended: float, files: list[Path], refusable: bool
) -> None:
    assert changed().drawable(name, began, ended) == files
    assert changed().refusable(name, began, ended) == refusable
    picture, refusal = told(began, ended, name, pixels_HW3=PIXELS), told(began, ended, name, error="400", clean=True)
    assert verdict(picture, changed(), 60) == ("answered" if files else "failed")
    assert verdict(refusal, changed(), 60) == ("refused" if refusable else "failed")
    assert verdict(replace(refusal, clean=False), changed(), 60) == "failed", "an error is no refusal"


def test_names_that_come_and_go_are_told_to_the_callers() -> None:
    assert set(changed().added()) == {"chalk", "clay"}


def test_late_is_lost_and_every_request_is_counted_once() -> None:
    many = [told(0, 61, pixels_HW3=PIXELS), told(0, 1, pixels_HW3=PIXELS), told(0, 3, pixels_HW3=PIXELS), told(0, 1)]
    line, total = by_dialect(many, Wardrobe(10.0), 60)
    assert {**line, "dialect": "all"} == total
    assert (line["sent"], line["answered"], line["refused"], line["failed"], line["lost"]) == (4, 2, 0, 1, 1)
    assert (line["p50_s"], line["p99_s"]) == (1.0, 3.0)


def test_a_move_is_timed_by_the_pictures_after_it() -> None:
    move = Move(at_s=0, version="2", how="crown", by="poll")
    moved = Moved(move=move, at=100.0, before="1")
    drawn = [told(0, at, pixels_HW3=PIXELS, version=version)
             for at, version in ((99, "1"), (103, "1"), (104, "2"), (106, "1"), (107, "2"), (130, "1"))]  # fmt: skip
    line = move_line(moved, 120.0, drawn)
    assert (line["first_new_s"], line["last_old_s"], line["old_after_new"]) == (4.0, 6.0, 1)
    none = move_line(moved, 102.0, drawn)
    assert (none["first_new_s"], none["last_old_s"]) == (None, None)


def test_counters_of_all_processes_are_summed() -> None:
    text = (
        'ray_ssd1b_bank_total{outcome="hit",replica="a"} 3.0\nray_ssd1b_bank_total{outcome="miss",replica="a"} 1.0\n'
        'ray_ssd1b_swap_seconds_count{replica="a"} 2.0\nray_ssd1b_swap_seconds_bucket{le="1",replica="a"} 9.0\n'
    )
    found = [(match["name"], float(match["value"])) for match in COUNTERS.finditer(text)]
    assert found == [("bank", 3.0), ("bank", 1.0), ("swap_seconds_count", 2.0)]
    assert bank_line({("hit", "a"): 3.0, ("hit", "b"): 2.0, ("miss", "a"): 1.0}) == {"hit": 5, "miss": 1}


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(0, 70))
def test_a_sample_has_as_much_as_can_be_of_every_stratum(items: list[int], count: int) -> None:
    taken = stratified(items, count, lambda item: item, np.random.default_rng(0))
    assert len(taken) == min(count, len(items))
    for kind in set(items):
        short = [taken.count(other) for other in set(items) if taken.count(other) < items.count(other)]
        fewest = min(short, default=len(items))
        assert taken.count(kind) <= fewest + 1


def test_pictures_are_held_against_each_other_in_their_own_format() -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert decibels(drawn, drawn) == EQUAL_DB
    assert decibels(as_segmind(drawn), as_segmind(drawn)) == EQUAL_DB
    assert decibels(as_segmind(drawn), drawn) < EQUAL_DB


def test_the_webhook_is_signed_as_mlflow_signs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sent: list[tuple[str, dict[str, str]]] = []

    def post(url: str, content: str, headers: dict[str, str], timeout: float) -> httpx.Response:
        assert url.startswith("http://here")
        assert timeout > 0
        sent.append((content, headers))
        return httpx.Response(204)

    monkeypatch.setattr(httpx, "post", post)
    server = Server(url="http://here", pid=0, log=tmp_path)
    endpoint = Endpoint(server=server, home=tmp_path, key="", connections=0)
    hands = Hands(config=serve_soak(), endpoint=endpoint, unet=None, wardrobe=Wardrobe(1), folder=tmp_path,  # type: ignore[arg-type]
                  variants=tmp_path)  # fmt: skip
    hands.tell()
    hands.tell()
    for number, (body, headers) in enumerate(sent):
        stamp = headers["x-mlflow-timestamp"]
        assert headers["x-mlflow-signature"] == _generate_hmac_signature(SECRET, str(number), stamp, body)
        assert abs(time.time() - int(stamp)) < 60
