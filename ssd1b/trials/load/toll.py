"""What a fault cost those who called meanwhile: pictures, errors, and money, held against the ledger of the accounts.

Every caller has an account of its own and asks for one picture at a time, so a charge belongs to the request during
which it was held: no ids have to agree for that, which a broken connection takes with it.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Outcome = Literal["answered", "failed", "lost"]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One picture that a caller wanted, with all its attempts. Times are seconds since 1970."""

    account: str
    seed: int
    began: float
    ended: float
    errors: tuple[str, ...]
    """What attempts before the last one ended with, or all of them."""
    outcome: Outcome
    """failed: an error in the end; lost: an attempt had neither an answer nor an error in time."""


@dataclass(frozen=True, kw_only=True)
class Charged:
    """A charge of the ledger that was captured."""

    account: str
    held: float
    """When its price was set aside: when the request had come."""


@dataclass(frozen=True, kw_only=True)
class Toll:
    """Sums over the calls around one fault."""

    sent: int
    answered: int
    failed: int
    lost: int
    errors: int
    """Attempts that saw an error; the client asked again, as SDKs do."""
    charged_twice: int
    """Charges beyond the first for a picture that was delivered."""
    charged_for_nothing: int
    """Charges for calls that got no picture."""
    worst_s: float
    """The longest that anybody waited for a picture."""


def toll(calls: Sequence[Call], charges: Sequence[Charged]) -> Toll:
    """Return what became of the calls. A charge held outside all of them counts as charged for nothing."""
    paid = [0] * len(calls)
    astray = 0
    for charge in charges:
        number = next((i for i, call in enumerate(calls) if belongs(charge, call)), None)
        if number is None:
            astray += 1
        else:
            paid[number] += 1
    answered = [call.outcome == "answered" for call in calls]
    return Toll(
        sent=len(calls),
        answered=sum(answered),
        failed=sum(call.outcome == "failed" for call in calls),
        lost=sum(call.outcome == "lost" for call in calls),
        errors=sum(len(call.errors) for call in calls),
        charged_twice=sum(max(0, times - 1) for times, ok in zip(paid, answered, strict=True) if ok),
        charged_for_nothing=astray + sum(times for times, ok in zip(paid, answered, strict=True) if not ok),
        worst_s=round(max((call.ended - call.began for call in calls if call.outcome == "answered"), default=0.0), 2),
    )


def unpaid(calls: Sequence[Call], charges: Sequence[Charged]) -> int:
    """Return how many delivered pictures nobody was charged for."""
    delivered = [call for call in calls if call.outcome == "answered"]
    return sum(not any(belongs(charge, call) for charge in charges) for call in delivered)


def belongs(charge: Charged, call: Call) -> bool:
    return charge.account == call.account and call.began <= charge.held <= call.ended


def charges(accounts: Path, since: float) -> list[Charged]:
    """Read from the accounts' database which charges were captured whose price was held since then.

    Read as a stranger would audit it, by SQL: `entries` holds holds and what settles them (serve/accounts/tables.py).
    """
    query = """
        SELECT accounts.name, held.at FROM entries AS captured
        JOIN entries AS held ON held.account = captured.account AND held.seq = captured.settles
        JOIN accounts ON accounts.id = captured.account
        WHERE captured.kind = 'capture' AND held.at >= ?
    """
    connection = sqlite3.connect(f"file:{accounts}?mode=ro", uri=True, timeout=30)
    try:
        return [Charged(account=name, held=held) for name, held in connection.execute(query, (since,))]
    finally:
        connection.close()
