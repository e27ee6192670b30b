"""What an admin does with accounts: open one, hand out and revoke keys, grant credits, list, tell what was used."""

import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from serve.accounts.keys import new_key
from serve.accounts.ledger import Ledger
from serve.accounts.prices import credits_of
from serve.accounts.tables import accounts, entries, keys
from serve.request import Priority
from ssd1b.command import nearest

DAY_S = 86_400


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What an account may do."""

    images_per_minute: int | None = None
    """None: no limit."""
    requests_per_minute: int | None = None
    priority: Priority = "interactive"
    admin: bool = False

    def __post_init__(self) -> None:
        for name in ("images_per_minute", "requests_per_minute"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise ValueError(f"{name} is {limit}: give at least 1, or leave it out for no limit")


class Office:
    """Each call takes the connection of one transaction, and returns what is worth printing."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._ledger = clock, Ledger(clock)

    def add(self, connection: Connection, name: str, mills: int, terms: Terms) -> dict[str, Any]:
        """Open an account.

        Raises:
            ValueError: a name that is taken or cannot be one, or a balance below 0.
        """
        if not re.fullmatch(r"[\w.@-]{1,64}", name):
            raise ValueError(f"{name!r} is no name for an account: up to 64 letters, digits and any of . _ - @")
        if name in self._names(connection):
            raise ValueError(f"there is an account {name} already: `grant` adds credits, `key` makes another key")
        values = {"name": name, "created_at": self._clock(), **asdict(terms)}
        account = connection.execute(insert(accounts).returning(accounts.c.id), values).scalar_one()
        if mills:
            self._ledger.grant(connection, account, mills, "opening")
        return {"name": name, "credits": credits_of(mills), **asdict(terms)}

    def key(self, connection: Connection, name: str, days: float | None) -> dict[str, Any]:
        """Make a key; it is in what this returns and nowhere else.

        Raises:
            ValueError: no such account, or a key that would have expired already.
        """
        account = self._account(connection, name)
        if days is not None and days <= 0:
            raise ValueError(f"a key for {days:g} days is expired from the start: give more, or leave --days out")
        key, kept = new_key()
        now = self._clock()
        expires_at = None if days is None else now + days * DAY_S
        values = {"account": account, "prefix": kept.prefix, "salt": kept.salt, "digest": kept.digest}
        connection.execute(insert(keys), values | {"created_at": now, "expires_at": expires_at})
        return {"name": name, "key": key, "prefix": kept.prefix, "expires": said(expires_at)}

    def revoke(self, connection: Connection, prefix: str) -> dict[str, Any]:
        """Refuse a key from now on. It may be given as its prefix, as `list` shows it, or whole.

        Raises:
            ValueError: no key has that prefix.
        """
        public = prefix.removeprefix("sk-").partition("-")[0]
        found = connection.execute(
            select(accounts.c.name, keys.c.revoked_at).join(keys).where(keys.c.prefix == public)
        ).one_or_none()
        if found is None:
            raise ValueError(f"no key begins with sk-{public}: `list` shows the prefixes")
        if found.revoked_at is None:
            connection.execute(update(keys).where(keys.c.prefix == public).values(revoked_at=self._clock()))
        return {"name": found.name, "revoked": public}

    def grant(self, connection: Connection, name: str, mills: int) -> dict[str, Any]:
        """Add credits, or take some away if below 0; what is held for requests now cannot be taken.

        Raises:
            ValueError: no such account, or it has not as much.
        """
        balance = self._ledger.grant(connection, self._account(connection, name), mills)
        return {"name": name, "granted": credits_of(mills), "credits": credits_of(balance)}

    def everyone(self, connection: Connection) -> list[dict[str, Any]]:
        """Return every account with its balance and keys."""
        found = []
        for row in connection.execute(select(accounts).order_by(accounts.c.name)).all():
            account = row._asdict()
            identity, created_at = account.pop("id"), account.pop("created_at")
            credits = credits_of(self._ledger.book(connection, identity).balance)
            query = select(keys).where(keys.c.account == identity).order_by(keys.c.created_at)
            kept = [{"prefix": key.prefix, "state": self._state(key)} for key in connection.execute(query)]
            found.append(account | {"credits": credits, "created": said(created_at), "keys": kept})
        return found

    def _state(self, key: Any) -> str:
        if key.revoked_at is not None:
            return f"revoked {said(key.revoked_at)}"
        if key.expires_at is None:
            return "good"
        return f"{'expired' if key.expires_at <= self._clock() else 'good until'} {said(key.expires_at)}"

    def usage(self, connection: Connection, name: str, since: float) -> dict[str, Any]:
        """Return what was charged since a time (seconds since 1970), by day (UTC) and in all.

        Raises:
            ValueError: no such account.
        """
        account = self._account(connection, name)
        capture, hold = entries.alias("capture"), entries.alias("hold")
        query = (
            select(capture.c.at, hold.c.pictures, hold.c.amount)
            .join(hold, (hold.c.account == capture.c.account) & (hold.c.seq == capture.c.settles))
            .where(capture.c.account == account, capture.c.kind == "capture", capture.c.at >= since)
            .order_by(capture.c.seq)
        )
        days: dict[str, list[int]] = {}
        for at, pictures, amount in connection.execute(query):
            day = days.setdefault(datetime.fromtimestamp(at, UTC).date().isoformat(), [0, 0, 0])
            for i, more in enumerate((1, pictures, -amount)):
                day[i] += more
        total = [sum(column) for column in zip(*days.values(), strict=True)] or [0, 0, 0]
        by_day = [{"day": day, **used(counts)} for day, counts in days.items()]
        return {"name": name, "since": said(since), **used(total), "days": by_day}

    def _account(self, connection: Connection, name: str) -> int:
        found = connection.execute(select(accounts.c.id).where(accounts.c.name == name)).scalar_one_or_none()
        if found is None:
            names = self._names(connection)
            raise ValueError(f"no account {name!r}{nearest(name, names)}; accounts: {', '.join(names) or 'none yet'}")
        return int(found)

    def _names(self, connection: Connection) -> list[str]:
        return list(connection.execute(select(accounts.c.name).order_by(accounts.c.name)).scalars())


def used(counts: list[int]) -> dict[str, Any]:
    requests, pictures, mills = counts
    return {"requests": requests, "pictures": pictures, "credits": credits_of(mills)}


def said(at: float | None) -> str | None:
    """Return a time as people and machines read it, UTC."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
