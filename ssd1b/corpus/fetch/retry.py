"""When to ask again: exponential backoff with jitter, and what the server itself asks for."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks to wait (RFC 9110 10.2.3: seconds or a date), at least 0.

    None without a header, and for one that cannot be read. `now` has a time zone.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])  # more digits are more years than anyone waits
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())


def pause_s(
    attempt: int, *, attempts: int, base_s: float, longest_s: float, asked_s: float | None, jitter: float
) -> float | None:
    """Return how long to wait after the failed attempt of this number (0 is the first), or None to give up.

    The pause doubles with each attempt up to longest_s; jitter in [0, 1) takes up to half of it away, so that rows that
    failed together do not come back together. A server's own wish is never cut short: one above longest_s ends it.
    """
    if attempt + 1 >= attempts or (asked_s is not None and asked_s > longest_s):
        return None
    own = min(longest_s, base_s * 2.0 ** min(attempt, 60)) * (1 - jitter / 2)
    return max(own, asked_s or 0.0)
