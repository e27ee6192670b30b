"""The accounts' command: `python -m serve.accounts VERB ...`.

The database is the one that $SSD1B_ACCOUNTS names (sqlite:////folder/accounts.db, postgresql://...), else accounts.db
under the storage root; the first `add` makes it, and an endpoint started after that asks for keys.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, get_args

from sqlalchemy import Connection

from serve.accounts.accounts import VARIABLE, default_file
from serve.accounts.database import AwayError, Database
from serve.accounts.ledger import faults
from serve.accounts.office import DAY_S, Office, Terms
from serve.accounts.prices import mills_of
from serve.request import Priority
from ssd1b.command import show


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m serve.accounts",
        description=(__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="print one JSON document")
    verbs = top.add_subparsers(dest="verb", required=True)

    def verb(name: str, says: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=says, description=says, parents=[as_json])

    add = verb("add", "open an account")
    add.add_argument("name")
    add.add_argument("--credits", default="0", help="one draws a 1024x1024 picture of 20 steps (default: %(default)s)")
    add.add_argument("--images-per-minute", type=int, help="default: no limit")
    add.add_argument("--requests-per-minute", type=int, help="default: no limit")
    add.add_argument("--priority", choices=get_args(Priority), default="interactive", help="default: %(default)s")
    add.add_argument("--admin", action="store_true", help="may see and do what concerns all callers")
    key = verb("key", "make an API key, which is shown this once")
    key.add_argument("name")
    key.add_argument("--days", type=float, help="it expires after so many (default: never)")
    verb("revoke", "refuse a key from now on").add_argument("prefix", help="as `list` shows it")
    grant = verb("grant", "add credits, or take some away: `grant NAME -5`")
    grant.add_argument("name")
    grant.add_argument("credits")
    verb("list", "show accounts, balances and keys")
    usage = verb("usage", "tell what an account was charged")
    usage.add_argument("name")
    usage.add_argument("--since", default="30d", help="2026-01-31, or 7d for seven days back (default: %(default)s)")
    verb("check", "hold the whole ledger against itself")
    return top


def main(arguments: list[str] | None = None) -> None:
    """Run one verb; what a user can mend ends with a message and status 2."""
    options = parser().parse_args(arguments)
    try:
        answer = run(options)
    except (ValueError, OSError, AwayError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from error
    show(json.dumps(answer) if options.json else words(options.verb, answer))
    if options.verb == "check" and answer["faults"]:
        raise SystemExit(1)


def run(options: argparse.Namespace) -> Any:
    office = Office()
    work: Callable[[Connection], Any]
    match options.verb:
        case "add":
            terms = Terms(
                images_per_minute=options.images_per_minute,
                requests_per_minute=options.requests_per_minute,
                priority=options.priority,
                admin=options.admin,
            )
            work = partial(office.add, name=options.name, mills=mills_of(options.credits), terms=terms)
        case "key":
            work = partial(office.key, name=options.name, days=options.days)
        case "revoke":
            work = partial(office.revoke, prefix=options.prefix)
        case "grant":
            work = partial(office.grant, name=options.name, mills=mills_of(options.credits))
        case "usage":
            work = partial(office.usage, name=options.name, since=since(options.since, time.time()))
        case "list":
            work = office.everyone
        case _:
            work = check
    url = os.environ.get(VARIABLE)
    if not url and options.verb != "add" and not default_file().exists():  # making it would close the endpoint to all
        raise ValueError("no accounts yet: `python -m serve.accounts add NAME --credits 1000` opens one")
    database = Database(url or f"sqlite:///{default_file()}")
    try:
        return database.run(work)
    finally:
        database.close()


def check(connection: Connection) -> dict[str, Any]:
    return {"faults": list(faults(connection))}


def since(text: str, now: float) -> float:
    """Read a day or a number of days back; return seconds since 1970."""
    if text.endswith("d") and text[:-1].isdigit():
        return max(0.0, now - int(text[:-1]) * DAY_S)
    try:
        day = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"--since {text!r}: write a day, 2026-01-31, or how many back, 7d") from error
    return (day if day.tzinfo else day.replace(tzinfo=UTC)).timestamp()


def words(verb: str, answer: Any) -> str:
    """Return an answer as lines for people."""
    match verb:
        case "key":
            until = f"until {answer['expires']}" if answer["expires"] else "until it is revoked"
            return f"{answer['key']}\nThe key of {answer['name']}, good {until}. It is shown this once; keep it."
        case "list":
            return "\n".join(map(account_lines, answer)) or "no accounts yet: `add NAME --credits 1000` opens one"
        case "usage":
            lines = [f"{answer['name']} since {answer['since']}"]
            rows = [*answer["days"], {**answer, "day": "in all"}]
            return "\n".join([*lines, *(f"  {row['day']:10}  {spent(row)}" for row in rows)])
        case "check":
            return "\n".join(answer["faults"]) or "the ledger agrees with itself"
        case _:
            return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in answer.items())


def account_lines(account: dict[str, Any]) -> str:
    limits = [f"{account[f'{what}_per_minute'] or 'any'} {what}" for what in ("images", "requests")]
    kind = f"{account['priority']}{', admin' if account['admin'] else ''}"
    head = f"{account['name']}: {account['credits']:g} credits, {' and '.join(limits)} per minute, {kind}"
    return "\n".join([head, *(f"  sk-{key['prefix']}  {key['state']}" for key in account["keys"])])


def spent(row: dict[str, Any]) -> str:
    return f"{row['requests']:>7,} requests {row['pictures']:>7,} pictures {row['credits']:>12,.3f} credits"


if __name__ == "__main__":
    main()
