"""The ledger against a model that holds a balance in a number, under any order of calls and any delay."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import Connection, create_engine, func, insert, select

from serve.accounts.ledger import HOLD_S, Ledger, faults
from serve.accounts.tables import accounts, entries, metadata, open_holds
from serve.errors import RequestError

REQUESTS = st.sampled_from(["r1", "r2", "r3"])
PRICES = {"r1": 100, "r2": 350, "r3": 40}


class Bench:
    """A ledger over SQLite in memory, with a clock that is set by hand and account 1."""

    def __init__(self, **terms: Any) -> None:
        self.now = 1_000_000.0
        self.ledger = Ledger(lambda: self.now)
        self.engine = create_engine("sqlite://")
        metadata.create_all(self.engine)
        for name in ("amy", "ben"):
            self.open_account(name, **terms)

    def open_account(self, name: str, **terms: Any) -> None:
        values = {"name": name, "admin": False, "priority": "interactive", "created_at": 0.0, **terms}
        with self.engine.begin() as connection:
            connection.execute(insert(accounts), values)

    def do(self, call: Callable[..., Any], *arguments: Any) -> Any:
        with self.engine.begin() as connection:
            return call(connection, *arguments)

    def hold(self, request: str, price: int = 100, pictures: int = 1, account: int = 1) -> Any:
        return self.do(self.ledger.hold, account, request, price, pictures)

    def capture(self, request: str, price: int = 100, account: int = 1) -> None:
        self.do(self.ledger.capture, account, request, price, 1)

    def release(self, request: str) -> None:
        self.do(self.ledger.release, 1, request)

    def grant(self, mills: int) -> int:
        return int(self.do(self.ledger.grant, 1, mills))

    def faults(self) -> list[str]:
        return self.do(lambda connection: list(faults(connection)))

    def balance(self) -> int:
        """The sum of the entries, as they lie there."""
        query = select(func.coalesce(func.sum(entries.c.amount), 0)).where(entries.c.account == 1)
        return int(self.do(lambda connection: connection.execute(query).scalar_one()))

    def kinds(self) -> list[str]:
        query = select(entries.c.kind).where(entries.c.account == 1).order_by(entries.c.seq)
        return self.do(lambda connection: list(connection.execute(query).scalars()))


class AnyOrder(RuleBasedStateMachine):
    """Balance, open holds and paid requests of the model; the ledger must agree after every call."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.balance = 0
        self.open: dict[str, float] = {}
        self.paid: set[str] = set()

    def swept(self) -> None:
        """Release in the model what the ledger releases when it looks."""
        for request, expires_at in list(self.open.items()):
            if expires_at <= self.bench.now:
                self.balance += PRICES[request]
                del self.open[request]

    @rule(mills=st.integers(-300, 600))
    def grant(self, mills: int) -> None:
        balance, opened = self.balance, dict(self.open)
        self.swept()
        if self.balance + mills < 0:
            with pytest.raises(ValueError, match="cannot be taken away"):
                self.bench.grant(mills)
            self.balance, self.open = balance, opened
        else:
            self.balance += mills
            assert self.bench.grant(mills) == self.balance

    @rule(request=REQUESTS)
    def hold(self, request: str) -> None:
        with self.refused_if_poor(request):
            self.bench.hold(request, PRICES[request])
            if request not in self.paid:
                self.open[request] = self.bench.now + HOLD_S

    @rule(request=REQUESTS)
    def capture(self, request: str) -> None:
        with self.refused_if_poor(request):
            self.bench.capture(request, PRICES[request])
            self.open.pop(request, None)
            self.paid.add(request)

    @contextmanager
    def refused_if_poor(self, request: str) -> Iterator[None]:
        balance, opened = self.balance, dict(self.open)
        self.swept()
        anew = request not in self.paid and request not in self.open
        if anew and self.balance < PRICES[request]:
            with pytest.raises(RequestError, match="costs"):
                yield
            self.balance, self.open = balance, opened
            return
        yield
        self.balance -= PRICES[request] if anew else 0

    @rule(request=REQUESTS)
    def release(self, request: str) -> None:
        self.swept()
        self.bench.release(request)
        if self.open.pop(request, None) is not None:
            self.balance += PRICES[request]

    @precondition(lambda self: self.open)
    @rule(share=st.sampled_from([0.4, 1.0]))
    def wait(self, share: float) -> None:
        self.bench.now += share * HOLD_S

    @invariant()
    def agrees(self) -> None:
        assert self.bench.faults() == []
        assert self.bench.balance() == self.balance
        kinds = self.bench.kinds()
        assert kinds.count("capture") == len(self.paid)
        assert kinds.count("hold") == kinds.count("capture") + kinds.count("release") + len(self.open)

    def teardown(self) -> None:
        self.bench.engine.dispose()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=25)


def test_too_few_credits_leave_no_trace() -> None:
    bench = Bench()
    bench.grant(99)
    with pytest.raises(RequestError, match=r"costs 0\.1 credits and the account amy has 0\.099") as info:
        bench.hold("r1")
    assert (info.value.status, info.value.code) == (402, "insufficient_credits")
    assert bench.kinds() == ["grant"]


def test_limits_per_minute() -> None:
    bench = Bench(images_per_minute=5, requests_per_minute=2)
    bench.grant(10_000)
    assert bench.hold("a", pictures=4).images.remaining == 1
    bench.now += 10
    with pytest.raises(RequestError, match=r"5 images per minute: try again in 50\.0 s") as info:
        bench.hold("b", pictures=2)
    assert (info.value.status, info.value.code, info.value.retry_after_s) == (429, "rate_limit_exceeded", 50)  # type: ignore[attr-defined]
    bench.hold("b")
    with pytest.raises(RequestError, match="2 requests per minute"):
        bench.hold("c")
    assert bench.hold("b").balance == 9800, "the same request again is not another one"
    with pytest.raises(RequestError, match="ask for fewer at once"):
        Bench(images_per_minute=5).hold("d", pictures=6)
    bench.now += 50.001
    assert bench.hold("c").requests.remaining == 0
    assert bench.faults() == []


def test_a_hold_whose_owner_died_goes_back_to_whoever_looks_next() -> None:
    bench = Bench()
    bench.grant(100)
    bench.hold("dead")
    with pytest.raises(RequestError, match="0 left"):
        bench.hold("alive")
    bench.now += HOLD_S
    bench.hold("alive")
    bench.capture("alive")
    with pytest.raises(RequestError, match="0 left"):
        bench.capture("dead")  # it lived after all, but what it held is spent: no pictures
    bench.grant(100)
    bench.capture("dead")
    assert bench.kinds() == ["grant", "hold", "release", "hold", "capture", "grant", "hold", "capture"]
    assert bench.faults() == []


def test_another_account_cannot_have_the_same_request() -> None:
    bench = Bench()
    bench.grant(1000)
    bench.hold("r1")
    with pytest.raises(ValueError, match="held by another account"):
        bench.hold("r1", account=2)
    bench.capture("r1")
    with pytest.raises(ValueError, match="paid by another account"):
        bench.capture("r1", account=2)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda c: c.execute(entries.update().where(entries.c.seq == 2).values(amount=-1)), "does not follow"),
        (lambda c: c.execute(entries.delete().where(entries.c.seq == 2)), "does not follow"),
        (lambda c: c.execute(entries.update().where(entries.c.seq == 3).values(settles=1)), "which held None"),
        (lambda c: c.execute(open_holds.delete()), "open holds are"),
        (lambda c: c.execute(entries.update().values(balance=-1)), "below 0"),
    ],
)
def test_the_check_finds_what_does_not_agree(harm: Callable[[Connection], Any], says: str) -> None:
    bench = Bench()
    bench.grant(1000)
    bench.hold("r1")
    bench.capture("r1")
    bench.hold("r2")
    assert bench.faults() == []
    bench.do(harm)
    assert any(says in fault for fault in bench.faults())
