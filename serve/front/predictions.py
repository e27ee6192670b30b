"""Predictions, files and idempotency keys, which outlive the request that made them: in a SQLite file, which all fronts
share; or in memory, then they end with the front's process.

Whoever runs a prediction holds a lease on it. The lease of a front that died runs out, and another front, or the same
one started again, takes the prediction and draws it again: its seed is in its input, so the pictures are the same, and
its id is charged once. What is done is kept for an hour, as on Replicate.
"""

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.errors import RequestError
from serve.front.once import DAY_S, MOST_USES, Key, reused, worn

KEPT_S = 3600.0
LEASE_S = 10.0
"""How long a prediction stays with a front that is not heard of."""
MOST_WAITING = 1000
"""Predictions of one account that are not done."""
MOST_FILES = 500
"""Files that one account has sent. What was made for it is not counted: it is paid for."""
SENT = "content"
"""The name of every file that was sent."""
PAGE = 100
DONE = ("succeeded", "failed", "canceled")
TABLES = """
create table if not exists predictions (
    id text primary key, account text not null, created real not null, state text not null,
    ended real, holder text, lease real not null default 0
);
create index if not exists predictions_by_account on predictions (account, created);
create table if not exists files (
    id text primary key, account text not null, created real not null, name text not null, type text not null,
    data blob not null
);
create table if not exists keys (
    account text not null, path text not null, key text not null, digest text not null, id text not null,
    created real not null, uses integer not null, primary key (account, path, key)
);
create table if not exists settings (name text primary key, value blob not null);
"""


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that was sent here, or a picture that a prediction made."""

    id: str
    created: float
    name: str
    type: str
    size: int
    """Bytes."""
    data: bytes


State = dict[str, Any]
"""A prediction as Replicate tells it, but for its urls; `output` holds ids of files. Beside it, under "run", what a
front must know to run it: the caller and the webhook."""


class Predictions:
    """The store. Its methods block for a moment: call them on a thread."""

    def __init__(self, path: Path | None) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._base = sqlite3.connect(path or ":memory:", timeout=30, isolation_level=None, check_same_thread=False)
        with self._lock:
            self._base.execute("pragma journal_mode = wal")
            self._base.executescript(TABLES)
            self._base.execute("insert or ignore into settings values ('secret', ?)", (secrets.token_bytes(32),))

    def close(self) -> None:
        with self._lock:
            self._base.close()

    def secret(self) -> bytes:
        """Return the secret that webhooks are signed with, the same for all fronts that share the file."""
        return bytes(self._rows("select value from settings where name = 'secret'")[0][0])

    def first(self, key: Key, digest: str, id: str) -> str:
        """Return the id of the first request under a key within a day: `id` if this is it.

        digest: what is equal for the same request only (once.digest_of).

        Raises:
            RequestError: 422, the key came with another request before, or all too often.
        """
        with self._transaction():
            old = time.time() - DAY_S
            self._rows(
                "delete from keys where account = ? and path = ? and key = ? and created < ?",
                key.account, key.path, key.text, old,
            )  # fmt: skip
            told = self._rows(
                "insert into keys values (?, ?, ?, ?, ?, ?, 1) "
                "on conflict (account, path, key) do update set uses = uses + 1 returning digest, id, uses",
                key.account, key.path, key.text, digest, id, time.time(),
            )  # fmt: skip
        before, first, uses = told[0]
        if before != digest:
            raise reused(key.text)
        if uses > MOST_USES:
            raise worn(key.text)
        return str(first)

    def add(self, account: str, state: State, holder: str) -> bool:
        """Keep a new prediction, leased to its holder; return False if there is one of its id already.

        Raises:
            RequestError: 429, too many wait.
        """
        with self._transaction():
            if self.get(state["id"]) is not None:
                return False
            waiting = self._rows("select count(*) from predictions where account = ? and ended is null", account)[0][0]
            if waiting >= MOST_WAITING:
                raise RequestError(
                    f"{waiting} predictions wait already: try again when some are done",
                    None,
                    "rate_limit_exceeded",
                    429,
                )
            now = time.time()
            self._rows(
                "insert into predictions values (?, ?, ?, ?, null, ?, ?)",
                state["id"], account, now, json.dumps(state), holder, now + LEASE_S,
            )  # fmt: skip
            return True

    def get(self, id: str, account: str | None = None) -> State | None:
        """Return a prediction, of the account if one is given."""
        rows = self._rows(
            "select state from predictions where id = ? and (? is null or account = ?)", id, account, account
        )
        return json.loads(rows[0][0]) if rows else None

    def change(self, id: str, **fields: Any) -> State | None:
        """Change fields of a prediction that is not done; return it as it is now, None if it is done or gone."""
        with self._transaction():
            state = self.get(id)
            if state is None or state["status"] in DONE:
                return None
            state |= fields
            ended = time.time() if state["status"] in DONE else None
            self._rows("update predictions set state = ?, ended = ? where id = ?", json.dumps(state), ended, id)
            return state

    def page(self, account: str, before: float | None) -> tuple[list[State], float | None]:
        """Return the account's predictions, the newest first, and where the next page begins."""
        rows = self._rows(
            "select state, created from predictions where account = ? and created < ? order by created desc limit ?",
            account, before if before is not None else time.time() + 1, PAGE + 1,
        )  # fmt: skip
        states = [json.loads(row[0]) for row in rows[:PAGE]]
        return states, rows[PAGE - 1][1] if len(rows) > PAGE else None

    def claim(self, holder: str) -> list[str]:
        """Take every prediction that is not done and that nobody is heard of, and return their ids."""
        now = time.time()
        rows = self._rows(
            "update predictions set holder = ?, lease = ? where ended is null and lease < ? returning id",
            holder, now + LEASE_S, now,
        )  # fmt: skip
        return [row[0] for row in rows]

    def renew(self, holder: str, ids: Sequence[str]) -> set[str]:
        """Lengthen the leases of these; return those that are still the holder's and not done."""
        kept = self._rows(
            "update predictions set lease = ? where ended is null and holder = ? "
            "and id in (select value from json_each(?)) returning id",
            time.time() + LEASE_S, holder, json.dumps(list(ids)),
        )  # fmt: skip
        return {row[0] for row in kept}

    def let_go(self, holder: str) -> None:
        """Give back what the holder has, for another front to take at once."""
        self._rows("update predictions set lease = 0 where ended is null and holder = ?", holder)

    def clean(self) -> None:
        """Forget what was done, and what was sent, more than an hour ago, and keys more than a day ago."""
        old = time.time() - KEPT_S
        self._rows("delete from predictions where ended < ?", old)
        self._rows("delete from files where created < ?", old)
        self._rows("delete from keys where created < ?", time.time() - DAY_S)

    def keep_file(self, account: str, name: str, type: str, data: bytes) -> File:
        """Keep a file.

        Raises:
            RequestError: 429, it was sent, and the account has sent too many.
        """
        with self._transaction():
            count = self._rows("select count(*) from files where account = ? and name = ?", account, SENT)[0][0]
            if name == SENT and count >= MOST_FILES:
                raise RequestError(
                    f"{count} files are kept for you already: delete some, or wait an hour", None,
                    "rate_limit_exceeded", 429,
                )  # fmt: skip
            file = File(id=secrets.token_hex(20), created=time.time(), name=name, type=type, size=len(data), data=data)
            self._rows("insert into files values (?, ?, ?, ?, ?, ?)", file.id, account, file.created, name, type, data)
            return file

    def file(self, id: str, account: str | None = None) -> File | None:
        """Return a file, of the account if one is given. Its id cannot be guessed: whoever has it may read it."""
        rows = self._rows(
            "select id, created, name, type, length(data), data from files where id = ? and (? is null or account = ?)",
            id, account, account,
        )  # fmt: skip
        return as_file(rows[0]) if rows else None

    def files(self, account: str) -> list[File]:
        """Return the account's files, the newest first, without their bytes."""
        rows = self._rows(
            "select id, created, name, type, length(data), x'' from files where account = ? order by created desc",
            account,
        )
        return [as_file(row) for row in rows]

    def drop_file(self, id: str, account: str) -> bool:
        """Forget a file; return whether there was one."""
        return bool(self._rows("delete from files where id = ? and account = ? returning id", id, account))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._base.execute("begin immediate")
            try:
                yield
                self._base.execute("commit")
            finally:
                if self._base.in_transaction:  # the work failed, or a full disk kept it from being committed
                    self._base.execute("rollback")

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        with self._lock, closing(self._base.execute(statement, values)) as cursor:
            return cursor.fetchall()


def as_file(row: tuple[Any, ...]) -> File:
    id, created, name, type, size, data = row
    return File(id=id, created=created, name=name, type=type, size=size, data=bytes(data))
