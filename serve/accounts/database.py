"""The database under the accounts: SQLite in a file, or PostgreSQL by url; what happens when it is away."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection

from serve.accounts.tables import metadata

logger = logging.getLogger("ray.serve")

AWAY = (OperationalError, InterfaceError, NoConnection)
"""What a database raises that cannot be reached, stops meanwhile, or keeps us waiting beyond `PATIENCE_S`."""
PATIENCE_S = 5
"""How long to wait for a connection, a statement, or another writer."""
TRIES, PAUSE_S = 3, 0.2
"""A connection is lost when the database restarts: work is tried again, since all of it may be done twice."""
MAKING = 0x55D1B
"""Number of PostgreSQL's advisory lock under which the tables are made: two processes may open them at once."""

PG = "postgresql://user:password@host/database"

Result = TypeVar("Result")


class AwayError(Exception):
    """The database does not answer; nothing is known of what was asked last."""


class Database:
    """Opened on first use, so that it can be sent to the process that uses it.

    SQLite's write-ahead log needs a local disk: processes on several machines share PostgreSQL.
    """

    def __init__(self, url: str) -> None:
        """Check the url; nothing is opened.

        Raises:
            ValueError: a url of another kind, or none.
        """
        try:
            self._url = make_url(url)
        except ArgumentError as error:
            raise ValueError(f"{url!r} is no database url; write sqlite:////folder/accounts.db or {PG}") from error
        if self._url.drivername in ("postgres", "postgresql"):
            self._url = self._url.set(drivername="postgresql+psycopg")
        self.embedded = self._url.drivername == "sqlite"
        if not self.embedded and self._url.drivername != "postgresql+psycopg":
            raise ValueError(f"accounts in {self._url.drivername!r} are not offered: sqlite, or {PG}")
        if self.embedded and self._url.database in (None, "", ":memory:"):
            raise ValueError("accounts must outlive the process: name a file, sqlite:////folder/accounts.db")
        self._engine: Engine | None = None
        self._opening = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Database, (self._url.render_as_string(hide_password=False),)

    def __str__(self) -> str:
        return self._url.render_as_string(hide_password=True)

    def run(self, work: Callable[[Connection], Result], *, writes: bool = True) -> Result:
        """Do the work in one transaction and return what it returns; an exception of the work rolls it back.

        The work may run again after a lost connection, and its commit may have arrived although that was lost.

        Raises:
            AwayError: the database does not answer.
        """
        for attempt in range(1, TRIES + 1):
            try:
                engine = self._open().execution_options(writes=writes)
                with engine.begin() as connection:
                    return work(connection)
            except AWAY as error:
                logger.warning("the accounts' database %s: attempt %d of %d: %s", self, attempt, TRIES, error)
                if attempt == TRIES or not isinstance(error, OperationalError) or not error.connection_invalidated:
                    raise AwayError(f"the accounts' database does not answer ({type(error).__name__})") from error
                time.sleep(PAUSE_S)
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Give the connections back; the next use opens new ones."""
        with self._opening:
            if self._engine:
                self._engine.dispose()
            self._engine = None

    def _open(self) -> Engine:
        with self._opening:
            if self._engine is None:
                engine = self._embedded() if self.embedded else self._server()
                with engine.execution_options(writes=True).begin() as connection:
                    if not self.embedded:
                        connection.execute(text("SELECT pg_advisory_xact_lock(:making)"), {"making": MAKING})
                    metadata.create_all(connection)
                self._engine = engine
            return self._engine

    def _embedded(self) -> Engine:
        Path(str(self._url.database)).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(self._url, connect_args={"timeout": PATIENCE_S})

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, _: Any) -> None:
            connection.isolation_level = None  # else the driver begins transactions when it thinks best
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                connection.execute(f"PRAGMA {pragma}")

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            # A writer that begins as a reader may find, at its first write, that another was faster, and must fail.
            writes = connection.get_execution_options().get("writes")
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        return engine

    def _server(self) -> Engine:
        milliseconds = PATIENCE_S * 1000
        limits = f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}"
        arguments = {"connect_timeout": PATIENCE_S, "tcp_user_timeout": milliseconds, "options": limits}
        return create_engine(self._url, connect_args=arguments, pool_pre_ping=True, pool_timeout=PATIENCE_S)
