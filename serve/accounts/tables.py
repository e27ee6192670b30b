"""The tables of the accounts: who may draw, and the ledger of what they had and spent.

The ledger is `entries`: rows are added and never changed. Each carries the balance after it, as a chain: row `seq` of
an account is row `seq` - 1 plus an amount, and no two rows have one number, so that two writers who read the same
balance cannot both write. `open_holds` repeats which holds are not settled yet, to find them fast; it changes in the
transactions that add the entries, and `Ledger.faults` checks that the two agree.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
)

metadata = MetaData()

accounts = Table(
    "accounts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("admin", Boolean, nullable=False),
    Column("priority", String(16), nullable=False),
    Column("images_per_minute", Integer),  # null: no limit
    Column("requests_per_minute", Integer),
    Column("created_at", Double, nullable=False),  # times are seconds since 1970
)

keys = Table(
    "keys",
    metadata,
    Column("prefix", String(16), primary_key=True),
    Column("account", Integer, ForeignKey(accounts.c.id), nullable=False, index=True),
    Column("salt", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
)

entries = Table(
    "entries",
    metadata,
    Column("account", Integer, ForeignKey(accounts.c.id), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(8), nullable=False),  # grant, hold, capture, release
    Column("amount", BigInteger, nullable=False),  # mills; a hold takes, a release gives back, a capture leaves it so
    Column("balance", BigInteger, nullable=False),  # mills, after this entry
    Column("at", Double, nullable=False),
    Column("request", String(128)),  # null: a grant
    Column("settles", BigInteger),  # seq of the hold that a capture or release ends
    Column("pictures", Integer, nullable=False, default=0),  # of a hold
    Column("note", String(256), nullable=False, default=""),
    UniqueConstraint("account", "settles", name="a_hold_is_settled_once"),
)
ONCE = "kind = 'capture'"
"""Word for word in the queries too: SQLite uses a partial index only where it can see that its condition holds."""
Index(
    "a_request_is_captured_once", entries.c.request, unique=True, sqlite_where=text(ONCE), postgresql_where=text(ONCE)
)
Index("entries_by_time", entries.c.account, entries.c.kind, entries.c.at)

open_holds = Table(
    "open_holds",
    metadata,
    Column("request", String(128), primary_key=True),
    Column("account", Integer, ForeignKey(accounts.c.id), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),  # mills, above 0
    Column("expires_at", Double, nullable=False),
    Index("open_holds_by_time", "account", "expires_at"),
)
