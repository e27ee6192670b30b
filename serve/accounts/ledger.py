"""Credits, exact under crashes: hold before drawing, then capture or release.

Every call is one transaction under the lock of its account's row. So a process that is killed between any two
statements leaves an account as it was, or with a hold, or settled; nothing between. A hold whose owner died is released
by whoever looks at the account next after `HOLD_S`. The balance is the sum of the entries, kept as a chain (tables.py).
All calls about a request may be made again, by any process, and count once; request ids are made by the front, never by
a client, who could have two pictures for one charge with them.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, Row, delete, insert, select, text, update

from serve.accounts.limits import UNLIMITED, WINDOW_S, Full, Room, room
from serve.accounts.refusals import too_fast, too_poor
from serve.accounts.tables import ONCE, accounts, entries, open_holds

HOLD_S = 900.0
"""A hold this old is taken for one whose owner died."""


@dataclass(frozen=True)
class Held:
    """A request may be drawn."""

    balance: int
    """Mills left, after the hold."""
    requests: Room = UNLIMITED
    images: Room = UNLIMITED


@dataclass
class Book:
    """One account within a transaction that holds its lock: where its chain ends."""

    connection: Connection
    row: Row[int, str, int | None, int | None]
    seq: int
    balance: int
    now: float

    def add(
        self,
        kind: str,
        amount: int,
        request: str | None,
        settles: int | None = None,
        pictures: int = 0,
        note: str = "",
    ) -> int:
        """Append an entry and return its number."""
        self.seq, self.balance = self.seq + 1, self.balance + amount
        values = {"account": self.row.id, "seq": self.seq, "kind": kind, "amount": amount, "balance": self.balance}
        values |= {"at": self.now, "request": request, "settles": settles, "pictures": pictures, "note": note}
        self.connection.execute(insert(entries), values)
        return self.seq

    def hold(self, request: str, price: int, pictures: int, note: str) -> None:
        if self.balance < price:
            raise too_poor(self.row.name, price, self.balance)
        seq = self.add("hold", -price, request, pictures=pictures, note=note)
        values = {"request": request, "account": self.row.id, "seq": seq, "amount": price}
        self.connection.execute(insert(open_holds), values | {"expires_at": self.now + HOLD_S})

    def settle(self, kind: str, request: str, seq: int, amount: int) -> None:
        self.add(kind, amount, request, settles=seq)
        self.connection.execute(delete(open_holds).where(open_holds.c.request == request))

    def open_hold(self, request: str) -> Row[str, int, int, int, float] | None:
        """Return the request's hold that is not settled, if there is one.

        Raises:
            ValueError: it is another account's.
        """
        found = self.connection.execute(select(open_holds).where(open_holds.c.request == request)).one_or_none()
        if found and found.account != self.row.id:
            raise ValueError(f"request {request} is held by another account: request ids must be unique")
        return found

    def captured(self, request: str) -> bool:
        """Whether the request is paid.

        Raises:
            ValueError: it was paid by another account.
        """
        query = select(entries.c.account).where(entries.c.request == request, text(ONCE))
        payer = self.connection.execute(query).scalar_one_or_none()
        if payer not in (None, self.row.id):
            raise ValueError(f"request {request} was paid by another account: request ids must be unique")
        return payer is not None

    def past(self, limited: bool) -> list[tuple[float, int]]:
        """Return when requests of the last minute came and how many pictures they asked for, oldest first."""
        if not limited:
            return []
        query = select(entries.c.at, entries.c.pictures).where(
            entries.c.account == self.row.id, entries.c.kind == "hold", entries.c.at > self.now - WINDOW_S
        )
        return [(at, pictures) for at, pictures in self.connection.execute(query.order_by(entries.c.seq))]


class Ledger:
    """The rules of the ledger. Each call takes the connection of one transaction (Database.run makes them)."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """clock: seconds since 1970."""
        self._clock = clock

    def book(self, connection: Connection, account: int) -> Book:
        """Lock the account, release the holds that nobody will settle, and return where it stands."""
        wanted = (accounts.c.id, accounts.c.name, accounts.c.images_per_minute, accounts.c.requests_per_minute)
        row = connection.execute(select(*wanted).where(accounts.c.id == account).with_for_update()).one()
        last = select(entries.c.seq, entries.c.balance).where(entries.c.account == account)
        seq, balance = connection.execute(last.order_by(entries.c.seq.desc()).limit(1)).one_or_none() or (0, 0)
        book = Book(connection, row, seq, balance, self._clock())
        query = select(open_holds).where(open_holds.c.account == account, open_holds.c.expires_at <= book.now)
        for hold in connection.execute(query.order_by(open_holds.c.seq)).all():
            book.settle("release", hold.request, hold.seq, hold.amount)
        return book

    def hold(
        self, connection: Connection, account: int, request: str, price: int, pictures: int, note: str = ""
    ) -> Held:
        """Set the price of a request aside; one that is held or paid already is not held again.

        Raises:
            RequestError: 429 beyond the account's limits per minute, 402 beyond its balance.
        """
        book = self.book(connection, account)
        if book.captured(request):
            return Held(book.balance)
        if book.open_hold(request):
            later = update(open_holds).where(open_holds.c.request == request)
            connection.execute(later.values(expires_at=book.now + HOLD_S))
            return Held(book.balance)
        row = book.row
        past = book.past(row.requests_per_minute is not None or row.images_per_minute is not None)
        requests = room(row.requests_per_minute, [(at, 1) for at, _ in past], 1, book.now)
        if isinstance(requests, Full):
            raise too_fast(row.name, "requests", requests.limit, requests.wait_s)
        images = room(row.images_per_minute, past, pictures, book.now)
        if isinstance(images, Full):
            raise too_fast(row.name, "images", images.limit, images.wait_s)
        book.hold(request, price, pictures, note)
        return Held(book.balance, requests, images)

    def capture(
        self, connection: Connection, account: int, request: str, price: int, pictures: int, note: str = ""
    ) -> None:
        """Take what was held, once. A hold that was taken for a dead one's meanwhile is made anew first.

        Raises:
            RequestError: 402, the hold had been released and what it held is spent.
        """
        book = self.book(connection, account)
        if book.captured(request):
            return
        if not (hold := book.open_hold(request)):
            book.hold(request, price, pictures, note)
            hold = book.open_hold(request)
            assert hold is not None
        book.settle("capture", request, hold.seq, 0)

    def release(self, connection: Connection, account: int, request: str) -> None:
        """Give back what was held, unless it is settled already."""
        book = self.book(connection, account)
        if hold := book.open_hold(request):
            book.settle("release", request, hold.seq, hold.amount)

    def grant(self, connection: Connection, account: int, amount: int, note: str = "") -> int:
        """Add mills to an account, or take some away if below 0; return the balance.

        Raises:
            ValueError: the account has not as much as is taken away.
        """
        book = self.book(connection, account)
        if book.balance + amount < 0:
            raise ValueError(f"{book.row.name} has {book.balance} mills; {-amount} cannot be taken away")
        book.add("grant", amount, None, note=note)
        return book.balance


def faults(connection: Connection) -> Iterator[str]:
    """Yield, in words, whatever in the whole ledger contradicts itself: nothing, ever."""
    ends: dict[int, tuple[int, int]] = {}
    unsettled: dict[tuple[int, int], tuple[str, int]] = {}
    for entry in connection.execute(select(entries).order_by(entries.c.account, entries.c.seq)):
        here = f"account {entry.account}, entry {entry.seq} ({entry.kind})"
        seq, balance = ends.get(entry.account, (0, 0))
        ends[entry.account] = (entry.seq, entry.balance)
        if (entry.seq, entry.balance) != (seq + 1, balance + entry.amount):
            yield f"{here}: balance {entry.balance} does not follow from {balance} and {entry.amount} of entry {seq}"
        if entry.balance < 0:
            yield f"{here}: the balance {entry.balance} is below 0"
        if entry.kind == "hold":
            unsettled[entry.account, entry.seq] = (entry.request, -entry.amount)
        elif entry.kind in ("capture", "release"):
            held = unsettled.pop((entry.account, entry.settles), None)
            if held != (entry.request, entry.amount if entry.kind == "release" else held and held[1]):
                yield f"{here}: it settles entry {entry.settles}, which held {held}"
    kept = {(row.account, row.seq): (row.request, row.amount) for row in connection.execute(select(open_holds))}
    if kept != unsettled:
        yield f"open holds are {kept}, by the entries {unsettled}"
